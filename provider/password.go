package provider

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Cost of a password hash: OWASP's recommendation for argon2id, and about
// 30 ms of one core. It is written into every hash, so it can be raised later.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16 // bytes
	argonKey     = 32 // bytes
)

// A password is the only factor, so NIST SP 800-63B-4 §3.1.1.2 asks for 15
// characters and for no rule about which. The upper bound keeps hashing cheap.
const (
	minPassword = 15   // characters
	maxPassword = 1024 // bytes
)

// GeneratePassword returns a random password of 96 bits that a person can
// read out and type.
func GeneratePassword() string { return randomReadable(4, 5) }

// normalPassword returns the form in which a password is compared: exactly
// what was typed, in Unicode's NFC, because keyboards compose differently.
func normalPassword(password string) string { return norm.NFC.String(password) }

// checkPassword reports why a password is refused. words are what an attacker
// who knows the account tries first: the username, the address.
func checkPassword(password string, words ...string) error {
	password = normalPassword(password)
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("has a control character, which no sign-in page can send")
	case n < minPassword:
		return fmt.Errorf("has %d characters; at least %d are needed, any kind will do", n, minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("is longer than %d bytes", maxPassword)
	}
	lower := strings.ToLower(password)
	for _, word := range append(words, "signet") {
		// Names of three letters are part of too many good passwords.
		word = strings.ToLower(normalPassword(word))
		if utf8.RuneCountInString(word) > 3 && strings.Contains(lower, word) {
			return fmt.Errorf("contains %q, which is the first thing to be guessed", word)
		}
	}
	return nil
}

// hashPassword returns the password's PHC string. It takes tens of
// milliseconds on purpose: never call it inside a transaction.
func hashPassword(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails: it aborts the program instead
	key := argon2.IDKey([]byte(normalPassword(password)), salt, argonTime, argonMemory, argonThreads, argonKey)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

package provider

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/signet-oidc/signet/storage"
)

// Cost of a password hash: OWASP's recommendation for argon2id, and about
// 20 ms of one core (BenchmarkHashPassword). It is written into every hash, so
// it can be raised later.
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
	MinPassword = 15   // characters
	maxPassword = 1024 // bytes
)

// GeneratePassword returns a random password of 96 bits that a person can
// read out and type.
func GeneratePassword() string { return randomReadable(4, 5) }

// normalPassword returns the form in which a password is compared: exactly
// what was typed, in Unicode's NFC, because keyboards compose differently.
func normalPassword(password string) string { return norm.NFC.String(password) }

// checkPassword reports why the user may not have this password at the issuer.
func checkPassword(password, issuer string, user storage.User) error {
	password = normalPassword(password)
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("has a control character, which no sign-in page can send")
	case n < MinPassword:
		return fmt.Errorf("has %d characters; at least %d are needed, any kind will do", n, MinPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("is longer than %d bytes", maxPassword)
	}
	lower := strings.ToLower(password)
	local, _, _ := strings.Cut(user.Email, "@")
	for _, word := range []string{user.Username, user.Email, local, "signet"} {
		// Names of three letters are part of too many good passwords.
		word = strings.ToLower(normalPassword(word))
		if utf8.RuneCountInString(word) > 3 && strings.Contains(lower, word) {
			return fmt.Errorf("contains %q, which is the first thing to be guessed", word)
		}
	}
	var names struct{ Name, Nickname string }
	_ = json.Unmarshal([]byte(user.Profile), &names) // an unreadable profile names nobody
	if guessable(password, wordsOf(issuer, user.Username, user.Email, names.Name, names.Nickname)) {
		return errors.New("is made of a few things that everybody tries, such as common words, runs and repetitions")
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

// newPasswordHash returns the hash of a password that the user chose in place
// of old ("": there is none), or an *InvalidError that says why it is refused.
func newPasswordHash(password, old, issuer string, user storage.User) (string, error) {
	var f InvalidError
	f.check("password", "", checkPassword(password, issuer, user))
	if old != "" && normalPassword(password) == normalPassword(old) {
		f.Add("password", "is the one to be replaced", "choose another")
	}
	if err := f.Err(); err != nil {
		return "", err
	}
	return hashPassword(password), nil
}

// dummyHash is what a password is compared with when there is nothing to
// compare it with: the same work, and no password matches.
const dummyHash = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// argonCost is what a PHC string says of how it was made.
type argonCost struct {
	memory, time uint32
	threads      uint8
}

// verifyPassword reports, in constant time, whether the PHC string is the
// password's, and whether it was made at another cost than today's. It takes
// tens of milliseconds on purpose.
func verifyPassword(phc, password string) (right, outdated bool) {
	var version int
	var c argonCost
	parts := strings.Split(phc, "$") // "", argon2id, v=, m=,t=,p=, salt, key
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, false
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.memory, &c.time, &c.threads); err != nil ||
		c.time == 0 || c.threads == 0 || c.memory > maxArgonMemory || c.time > maxArgonTime {
		return false, false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, false
	}
	key, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(key) < 16 || len(password) > maxPassword {
		return false, false
	}
	got := argon2.IDKey([]byte(normalPassword(password)), salt, c.time, c.memory, c.threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1, c != argonCost{argonMemory, argonTime, argonThreads}
}

// An imported hash may cost this much and no more.
const (
	maxArgonMemory = 256 << 10 // KiB
	maxArgonTime   = 16
)

// hashGate bounds the memory that password hashing takes: so many at once, so
// many waiting, and no more.
type hashGate struct {
	slots   chan struct{}
	waiting chan struct{}
}

func newHashGate(atOnce, queue int) *hashGate {
	return &hashGate{slots: make(chan struct{}, atOnce), waiting: make(chan struct{}, atOnce+queue)}
}

// enter waits for a turn, or returns *BusyError when too many wait already.
func (g *hashGate) enter(ctx context.Context) (release func(), err error) {
	select {
	case g.waiting <- struct{}{}:
	default:
		return nil, &BusyError{RetryAfter: 2 * time.Second}
	}
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots; <-g.waiting }, nil
	case <-ctx.Done():
		<-g.waiting
		return nil, &BusyError{RetryAfter: 2 * time.Second}
	}
}

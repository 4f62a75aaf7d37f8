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

// What every password hash has in common.
const (
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

// argonCost is what a hash costs, and what a PHC string says of how it was
// made: so it can be raised later.
type argonCost struct {
	memory, time uint32 // KiB, passes
	threads      uint8
}

// hash returns the password's PHC string. It takes long on purpose: never call
// it inside a transaction.
func (c argonCost) hash(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails: it aborts the program instead
	return c.phc(salt, argon2.IDKey([]byte(normalPassword(password)), salt, c.time, c.memory, c.threads, argonKey))
}

// nobody returns what a password is compared with when there is nothing to
// compare it with: the same work, and no password matches.
func (c argonCost) nobody() string { return c.phc(make([]byte, argonSalt), make([]byte, argonKey)) }

func (c argonCost) phc(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, c.memory, c.time, c.threads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// newPasswordHash returns the hash of a password that the user chose in place
// of old ("": there is none), or an *InvalidError that says why it is refused.
func (p *Provider) newPasswordHash(password, old string, user storage.User) (string, error) {
	var f InvalidError
	f.check("password", "", checkPassword(password, p.issuer.String(), user))
	if old != "" && normalPassword(password) == normalPassword(old) {
		f.Add("password", "is the one to be replaced", "choose another")
	}
	if err := f.Err(); err != nil {
		return "", err
	}
	return p.policy.passwordCost().hash(password), nil
}

// verify reports, in constant time, whether the PHC string is the password's,
// and whether it was made at another cost than c. It takes long on purpose.
func (c argonCost) verify(phc, password string) (right, outdated bool) {
	var version int
	var made argonCost
	parts := strings.Split(phc, "$") // "", argon2id, v=, m=,t=,p=, salt, key
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, false
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &made.memory, &made.time, &made.threads); err != nil ||
		made.time == 0 || made.threads == 0 || made.memory > maxArgonMemory || made.time > maxArgonTime {
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
	got := argon2.IDKey([]byte(normalPassword(password)), salt, made.time, made.memory, made.threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1, made != c
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

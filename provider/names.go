package provider

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// LoginKey returns the form in which usernames and e-mail addresses are
// compared, or an error that says why login can be neither. Whoever types a
// name in other case or width, or composed differently, means the same person.
func LoginKey(login string) (string, error) {
	if strings.Contains(norm.NFKC.String(login), "@") {
		return emailKey(login)
	}
	return usernameKey(login)
}

// usernameKey returns the canonical form of a username (RFC 8265 §3.3,
// UsernameCaseMapped). A username has no "@", so none can pose as an address,
// and is neither a UUID nor of the form of pairwise names, so none can pose as a sub.
func usernameKey(name string) (string, error) {
	if n := utf8.RuneCountInString(name); n == 0 || n > 64 {
		return "", errors.New("has to have 1 to 64 characters")
	}
	key, err := precis.UsernameCaseMapped.String(name)
	if err != nil {
		return "", errors.New("may have letters, digits and ASCII punctuation, but no space, symbol or mixed directions (RFC 8265 §3)")
	}
	if strings.Contains(key, "@") {
		return "", errors.New("may not have an @, so that it cannot be taken for an e-mail address")
	}
	if isUUID(key) || isPairwise(name, pairwiseSubSize) {
		return "", errors.New("may not look like a sub, so that it cannot be taken for one")
	}
	return key, nil
}

// emailKey returns the canonical form of an e-mail address: compatibility
// forms and case folded, the domain as DNS has it. Mail goes to the address as
// it was typed; RFC 5321 §2.4 leaves the case of the local part to its host.
func emailKey(address string) (string, error) {
	if strings.ContainsFunc(address, func(r rune) bool {
		return r == utf8.RuneError || !unicode.IsGraphic(r) || unicode.IsSpace(r)
	}) {
		return "", errors.New("has a space or a control character")
	}
	folded := norm.NFKC.String(strings.ToLower(norm.NFKC.String(address)))
	local, domain, found := strings.Cut(folded, "@")
	if !found || strings.Contains(domain, "@") {
		return "", errors.New("has to have exactly one @")
	}
	if local == "" || len(local) > 64 || strings.ContainsAny(local, `"(),:;<>[\] `) ||
		strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return "", errors.New("has a part before the @ that is empty, longer than 64 bytes, or misspelt (RFC 5321 §4.1.2)")
	}
	domain, err := idna.Lookup.ToASCII(domain)
	if err != nil || domain == "" || len(domain) > 253 || strings.HasSuffix(domain, ".") {
		return "", errors.New("has a part after the @ that is no domain name")
	}
	return local + "@" + domain, nil
}

// isUUID says whether s is written as every sub is.
func isUUID(s string) bool {
	_, err := uuid.Parse(s)
	return err == nil && len(s) == 36
}

// checkLabel reports what is wrong with a name that people read: a client's
// or a resource's.
func checkLabel(s string) error {
	switch n := utf8.RuneCountInString(s); {
	case strings.TrimSpace(s) == "":
		return errors.New("is empty")
	case n > 200:
		return errors.New("is longer than 200 characters")
	case strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsGraphic(r) || isBlank(r) }):
		return errors.New("has a control character, or one that nobody sees")
	}
	return checkLookalike(s)
}

// isBlank knows what counts as a letter, symbol or space but shows nothing
// that a plain space would not.
func isBlank(r rune) bool {
	return r != ' ' && unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) && r != ' ' ||
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r) || r == '\u2800'
}

// lookalikes are the letters of other scripts that a person takes for Latin
// ones, by script.
func lookalikes() map[*unicode.RangeTable]string {
	return map[*unicode.RangeTable]string{
		unicode.Cyrillic: "АВЕЅІЈКМНОРСТХҮԌԚԜаеѕіјорсухһԁԛԝӏ",
		unicode.Greek:    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορτυχ",
		unicode.Armenian: "ՍՏՕԼցհոսօզքնլգ",
		unicode.Cherokee: "", // every letter of these scripts
		unicode.Lisu:     "",
		unicode.Coptic:   "",
	}
}

// checkLookalike reports a name that is written to be taken for another one:
// letters of scripts that look alike side by side, or nothing but those that
// look Latin (Unicode TR 39 §4, §5), letters in fancy dress, heaps of accents.
func checkLookalike(s string) error {
	scripts := lookalikes()
	var found []*unicode.RangeTable // which of them there are, and Latin
	marks, distinct := 0, false     // distinct: one letter at least is unmistakable
	letter := func(script *unicode.RangeTable, r rune) bool {
		if !unicode.Is(script, r) {
			return false
		}
		if !slices.Contains(found, script) {
			found = append(found, script)
		}
		return true
	}
	for _, r := range s {
		if unicode.Is(unicode.M, r) {
			if marks++; marks > 3 {
				return errors.New("has more than three marks on one letter")
			}
			continue
		}
		marks = 0
		if plain := norm.NFKC.String(string(r)); plain != string(r) && plain != norm.NFC.String(string(r)) && (unicode.IsLetter(r) || isOneLetter(plain)) {
			return fmt.Errorf("has %q, which is another way to write %q; write that", r, plain)
		}
		if !unicode.IsLetter(r) {
			continue
		}
		if letter(unicode.Latin, r) {
			distinct = true
			continue
		}
		for script, alike := range scripts {
			if letter(script, r) && alike != "" && !strings.ContainsRune(alike, r) {
				distinct = true
			}
		}
	}
	switch {
	case len(found) > 1:
		return errors.New("mixes letters of scripts that look alike, as Latin and Cyrillic")
	case len(found) == 1 && !distinct:
		return errors.New("has only letters that are taken for Latin ones")
	}
	return nil
}

// isOneLetter says whether a rune's plain form is one letter, be it in brackets:
// № and ™ are two, and fool nobody.
func isOneLetter(plain string) bool {
	r, size := utf8.DecodeRuneInString(strings.Trim(plain, "()"))
	return unicode.IsLetter(r) && size == len(strings.Trim(plain, "()"))
}

// checkClientID reports what is wrong with a client identifier. Its characters
// need no escaping in a URL or in Basic credentials (RFC 6749 §2.3.1). In
// client-credentials tokens it is the sub, so it may not look like a person's
// (RFC 9068 §5, RFC 9700 §4.15).
func checkClientID(s string) error {
	if isUUID(s) {
		return errors.New("may not be a UUID, so that it can never equal a person's sub")
	}
	if isClientURL(s) { // one may be registered like any other (CIMD §8.2)
		_, err := parseClientURL(s)
		return err
	}
	return checkIdentifier(s, "-._~")
}

// checkRole reports what is wrong with the name of a role.
func checkRole(s string) error { return checkIdentifier(s, "-._~:/") }

// checkIdentifier allows ASCII letters and digits and, after the first, punctuation.
func checkIdentifier(s, punctuation string) error {
	if s == "" || len(s) > 128 {
		return errors.New("has to have 1 to 128 characters")
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !digit && (i == 0 || strings.IndexByte(punctuation, c) < 0) {
			return fmt.Errorf("may have ASCII letters, digits and %s, and begins with a letter or digit", punctuation)
		}
	}
	return nil
}

// checkScopeToken reports what is wrong with a scope's name (RFC 6749 §3.3).
func checkScopeToken(s string) error {
	if s == "" || len(s) > 128 {
		return errors.New("has to have 1 to 128 characters")
	}
	if !ValidScope(s) {
		return errors.New(`may have no space, " or \ and only ASCII (RFC 6749 §3.3)`)
	}
	if slices.Contains(oidcScopes, s) {
		return errors.New("is one of OpenID Connect's own scopes (OIDC Core §5.4, §11)")
	}
	return nil
}

// readable has no vowels, so that it spells nothing, and nothing that is
// mistaken for something else on a screen.
const readable = "23456789bcdfghjkmnpqrstvwxyz"

// randomReadable returns groups of size characters each, joined by hyphens;
// a character is worth 4.8 bits.
func randomReadable(groups, size int) string {
	var b strings.Builder
	var one [1]byte
	for i := 0; i < groups*size; {
		_, _ = rand.Read(one[:]) // never fails: it aborts the program instead
		n := int(one[0])
		if n >= 256-256%len(readable) {
			continue // keeps every character equally likely
		}
		if i > 0 && i%size == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(readable[n%len(readable)])
		i++
	}
	return b.String()
}

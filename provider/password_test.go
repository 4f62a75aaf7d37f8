package provider

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/signet-oidc/signet/storage"
)

func TestCheckPassword(t *testing.T) {
	varied := ""
	for i := range 400 {
		varied += strconv.Itoa(i*i) + "-"
	}
	tests := []struct {
		name     string
		password string
		good     bool
	}{
		{"14 characters", "tall blue gira", false},
		{"15 characters", "tall blue giraf", true},
		{"15 characters beyond ASCII", "öüäßéèêñçøåæœðþ", true},
		{"14 characters of two bytes", "öüäßéèêñçøåæœð", false},
		{"14 characters that are 15 before normalisation", strings.Repeat("a", 13) + "u\u0308", false},
		{"64 characters", varied[:64], true},
		{"200 characters", varied[:200], true},
		{"1024 bytes", varied[:1024], true},
		{"1025 bytes", varied[:1025], false},
		{"only digits", "482915736482915", true},
		{"spaces", "four words are enough", true},
		{"emoji", "🦉🦊🐻🐼🐨🐯🦁🐮🐷🐸🐵🐔🐧🐦🐤", true},
		{"line break", "abcdefghijklmno\np", false},
		{"NUL", "abcdefghijklmno\x00", false},
		{"not UTF-8", "abcdefghijklmno\xff", false},
		{"the username", "my name is Alice, hello", false},
		{"the address", "mail to al@example.com please", false},
		{"the name of the program", "signet signet signet", false},
		{"a few common words", "password iloveyou", false},
		{"a name of two letters", "already long enough", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := checkPassword(test.password, houseIssuer, storage.User{Username: "alice", Email: "al@example.com"}); (err == nil) != test.good {
				t.Error(err)
			}
		})
	}
}

func TestGeneratedPasswordIsAccepted(t *testing.T) {
	if err := checkPassword(GeneratePassword(), houseIssuer, storage.User{Username: "alice"}); err != nil {
		t.Error(err)
	}
}

// The hash says how it was made, so that anyone can check it, and keeps every
// byte of what was typed.
func TestHashPassword(t *testing.T) {
	typed := strings.Repeat("correct horse ", 20) + "caf\u00e9"
	cost := DefaultPolicy().passwordCost()
	phc := cost.hash(typed)
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != "v=19" || parts[3] != "m=19456,t=2,p=1" {
		t.Fatalf("not the PHC string wanted: %s", phc)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		password string
		same     bool
	}{
		"as typed":               {typed, true},
		"decomposed":             {strings.Repeat("correct horse ", 20) + "cafe\u0301", true},
		"last character changed": {typed[:len(typed)-2] + "e", false},
		"first 72 bytes":         {typed[:72], false},
		"first 128 bytes":        {typed[:128], false},
		"in capitals":            {strings.ToUpper(typed), false},
		"with a space after it":  {typed + " ", false},
		"in full width":          {strings.Replace(typed, "c", "\uff43", 1), false},
	} {
		got := argon2.IDKey([]byte(normalPassword(test.password)), salt, 2, 19456, 1, 32)
		if bytes.Equal(got, key) != test.same {
			t.Errorf("%s: same hash is %t, want %t", name, !test.same, test.same)
		}
	}
	if cost.hash(typed) == phc {
		t.Error("the same password twice has the same hash: no salt")
	}
}

func BenchmarkHashPassword(b *testing.B) {
	cost := DefaultPolicy().passwordCost()
	for b.Loop() {
		cost.hash("a quiet heron at dawn")
	}
}

package provider

import (
	"slices"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/storage"
)

func TestGuessable(t *testing.T) {
	for password, want := range map[string]bool{
		"passwordpassword": true, "PasswordPassword1": true, "123456789012345": true, "qwertyuiopasdfgh": true,
		"iloveyou12345678": true, "aaaaaaaaaaaaaaaa": true, "xkqjxkqjxkqjxkqj": true, "Summer2024Winter2025": true,
		"9876543210987654": true, "correcthorsebatterystaple": true, "letmeinletmein123": true, "abcdefghijklmnop": true,
		"momsanaladventure": true, "Polniypizdec110211": true, "scoobydooscooby": true, "wolverinebeaver": true, // on the list, or two that are

		housePassword: false, "another quiet heron": false, "dragon eats seven pancakes": false, "dragonanchorpelicanpancake": false,
		"7Kq!w9Zr2#mVp4Lx": false, "mein kleiner grüner kaktus": false, "пароль из семи слов": false, "482915736482915": false,
	} {
		if guessable(password, nil) != want {
			t.Errorf("%q: %t", password, !want)
		}
	}
	for range 1000 {
		if password := GeneratePassword(); guessable(password, nil) {
			t.Fatalf("a generated password is refused: %q", password)
		}
	}
}

// L7: what belongs to the account or the service is among the first guesses.
func TestGuessableFromTheAccount(t *testing.T) {
	ada := storage.User{Username: "ada", Email: "ada@zylograph.example", Profile: `{"name":"Ada Quillfeather"}`}
	for _, password := range []string{"zylograph zylograph!", "Quillfeather Ada 1", "KrumbholzQuillfeather12"} {
		err := checkPassword(password, "https://krumbholz.example", ada)
		if err == nil {
			t.Errorf("%q is accepted", password)
		}
		if err := checkPassword(password, houseIssuer, storage.User{}); err != nil {
			t.Errorf("%q is refused to somebody else: %v", password, err)
		}
	}
}

// The list is searched in the order it is kept in.
func TestCommonPasswords(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(commonPasswords, "\n"), "\n")
	if len(lines) < 3000 || !slices.IsSorted(lines) || len(slices.Compact(slices.Clone(lines))) != len(lines) {
		t.Fatalf("%d lines, not sorted or not all different", len(lines))
	}
	for _, line := range lines {
		if line != strings.ToLower(line) || !listed(commonPasswords, line) || listed(commonPasswords, line+"~") {
			t.Fatalf("%q is not found, or what follows it is", line)
		}
	}
	for _, absent := range []string{"", "\n", "zzzzzzzzzzzzzzzz", " ", "password\npassword1", lines[0] + "\n"} {
		if listed(commonPasswords, absent) {
			t.Errorf("%q is found", absent)
		}
	}
}

func BenchmarkGuessable(b *testing.B) {
	for b.Loop() {
		guessable("sixty-four characters of something that nobody would ever guess.", nil)
	}
}

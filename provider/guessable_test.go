package provider

import "testing"

func TestGuessable(t *testing.T) {
	for password, want := range map[string]bool{
		"passwordpassword": true, "PasswordPassword1": true, "123456789012345": true, "qwertyuiopasdfgh": true,
		"iloveyou12345678": true, "aaaaaaaaaaaaaaaa": true, "xkqjxkqjxkqjxkqj": true, "Summer2024Winter2025": true,
		"9876543210987654": true, "correcthorsebatterystaple": true, "letmeinletmein123": true, "abcdefghijklmnop": true,

		housePassword: false, "another quiet heron": false, "people.example ann": false, "dragon eats seven pancakes": false,
		"7Kq!w9Zr2#mVp4Lx": false, "mein kleiner grüner kaktus": false, "пароль из семи слов": false,
	} {
		if guessable(password) != want {
			t.Errorf("%q: %t", password, !want)
		}
	}
	for range 1000 {
		if password := GeneratePassword(); guessable(password) {
			t.Fatalf("a generated password is refused: %q", password)
		}
	}
}

func BenchmarkGuessable(b *testing.B) {
	for b.Loop() {
		guessable("sixty-four characters of something that nobody would ever guess.")
	}
}

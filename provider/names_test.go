package provider

import (
	"strings"
	"testing"
)

func TestUsernameKey(t *testing.T) {
	tests := []struct {
		name  string
		typed string
		key   string // "" when it is refused
	}{
		{"plain", "alice", "alice"},
		{"capitals", "Alice", "alice"},
		{"full width", "Ａｌｉｃｅ", "alice"},
		{"composed", "zo\u00eb", "zo\u00eb"},
		{"decomposed", "zoe\u0308", "zo\u00eb"},
		{"punctuation", "a.l-i_c+e!", "a.l-i_c+e!"},
		{"digits", "4711", "4711"},
		{"64 characters", strings.Repeat("é", 64), strings.Repeat("é", 64)},
		{"65 characters", strings.Repeat("é", 65), ""},
		{"empty", "", ""},
		{"space", "alice smith", ""},
		{"line break", "alice\n", ""},
		{"NUL", "al\x00ice", ""},
		{"zero-width space", "al\u200bice", ""},
		{"right-to-left override", "al\u202eice", ""},
		{"symbol", "alice☃", ""},
		{"not UTF-8", "al\xffice", ""},
		{"an address", "alice@example.com", ""},
		{"a full-width @", "alice＠example.com", ""},
		{"a UUID", "6F9619FF-8B86-4011-B42D-00CF4FC964FF", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := usernameKey(test.typed)
			if key != test.key || (err == nil) != (test.key != "") {
				t.Errorf("key %q, %v; want %q", key, err, test.key)
			}
		})
	}
}

func TestEmailKey(t *testing.T) {
	tests := []struct {
		name  string
		typed string
		key   string // "" when it is refused
	}{
		{"plain", "alice@example.com", "alice@example.com"},
		{"capitals", "Alice@Example.COM", "alice@example.com"},
		{"compatibility form", "ａlice@example.com", "alice@example.com"},
		{"Kelvin sign", "\u212aim@example.com", "kim@example.com"},
		{"a domain beyond ASCII", "alice@Bücher.example", "alice@xn--bcher-kva.example"},
		{"the same domain as DNS has it", "alice@xn--bcher-kva.example", "alice@xn--bcher-kva.example"},
		{"plus", "alice+shop@example.com", "alice+shop@example.com"},
		{"one label", "root@localhost", "root@localhost"},
		{"no @", "alice.example.com", ""},
		{"two @", "alice@evil@example.com", ""},
		{"a second @ in full width", "alice＠evil@example.com", ""},
		{"nothing before", "@example.com", ""},
		{"nothing after", "alice@", ""},
		{"space", "alice @example.com", ""},
		{"line break", "alice@example.com\r\nBcc: bob@example.com", ""},
		{"comment", "alice(x)@example.com", ""},
		{"list", "alice,bob@example.com", ""},
		{"two dots", "a..b@example.com", ""},
		{"not UTF-8", "al\xffice@example.com", ""},
		{"local part too long", strings.Repeat("a", 65) + "@example.com", ""},
		{"no domain name", "alice@exa_mple!.com", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := emailKey(test.typed)
			if key != test.key || (err == nil) != (test.key != "") {
				t.Errorf("key %q, %v; want %q", key, err, test.key)
			}
		})
	}
}

func TestLoginKey(t *testing.T) {
	for typed, want := range map[string]string{"Alice": "alice", "Alice@Example.com": "alice@example.com", "alice＠example.com": "alice@example.com"} {
		if key, err := LoginKey(typed); err != nil || key != want {
			t.Errorf("%q: %q, %v; want %q", typed, key, err, want)
		}
	}
	if _, err := LoginKey("a b"); err == nil {
		t.Error("a name with a space is accepted")
	}
}

func TestCheckClientID(t *testing.T) {
	for id, good := range map[string]bool{
		"nightly":                              true,
		"a1-b2.c3_d4~e5":                       true,
		strings.Repeat("a", 128):               true,
		strings.Repeat("a", 129):               false,
		"":                                     false,
		"-nightly":                             false,
		"night ly":                             false,
		"night:ly":                             false,
		"https://a.example/c":                  true, // CIMD §8.2
		"https://a.example":                    false,
		"http://a.example/c":                   false,
		"nächtlich":                            false,
		"6f9619ff-8b86-4011-b42d-00cf4fc964ff": false,
		"6F9619FF-8B86-4011-B42D-00CF4FC964FF": false,
	} {
		if err := checkClientID(id); (err == nil) != good {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// K3: an app's name cannot look like another one, or like nothing.
func TestCheckLabel(t *testing.T) {
	for name, good := range map[string]bool{
		"Shop": true, "Müller & Söhne GmbH": true, "Café №1": true, "متجر الكتب": true, "קניות": true, "東京ショップ Tokyo": true,
		"Магазин": true, "Αγορά": true, "Ձյուն": true, "한국 상점": true, "ร้านค้าออนไลน์": true, "🦉 Owl": true,
		"Zoe\u0308": true, strings.Repeat("é", 200): true,

		"": false, "   ": false, strings.Repeat("é", 201): false, strings.Repeat("x", 10_000): false, "Sh\xffop": false,
		"Shop\n": false, "Shop\x00": false, "Shop\u202egnp.exe": false, "Shop\u2066x\u2069": false, "Sh\u200bop": false,
		"\u200fShop": false, "Sh\u00adop": false, "\ufeffShop": false, "Sh\u2060op": false, // direction, zero width
		"\u3164": false, "Shop\u3164": false, "\u2800": false, "Shop\u00a0by\u00a0signet": false, "\u3000": false, "S\u034fhop": false, "Shop\ufe0f": false, // unseen
		"Sh\u043ep": false, "P\u0430ypal": false, "Google \u0410ccount": false, "Sh\u03bfp": false, "\u054fhop": false, // mixed
		"\u0420\u0430\u0443\u0440\u0430": false, "\u0391\u039a\u039f": false, "\u13aa\u13b3": false, "\ua4d0\ua4ee\ua4e0\ua4d7": false, // as if Latin
		"𝐒𝐡𝐨𝐩": false, "Ｓｈｏｐ": false, "ﬁrst": false, // fancy dress
		"Ⓢhop": false, "🅂hop": false, "Shⓞp": false, "paypaⅼ": false, "⒮hop": false, "Shop™": true,
		"S\u0301\u0302\u0303\u0304hop": false,
	} {
		if err := checkLabel(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCheckScopeToken(t *testing.T) {
	for scope, good := range map[string]bool{
		"orders:read": true, "a=b": true, "!": true, strings.Repeat("s", 128): true,
		"": false, "a b": false, `a"b`: false, `a\b`: false, "ä": false, "a\tb": false, strings.Repeat("s", 129): false,
		"openid": false, "profile": false, "email": false, "address": false, "phone": false, "offline_access": false,
	} {
		if err := checkScopeToken(scope); (err == nil) != good {
			t.Errorf("%q: %v", scope, err)
		}
	}
}

func TestRandomReadable(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		s := randomReadable(4, 5)
		groups := strings.Split(s, "-")
		if len(groups) != 4 || len(groups[0]) != 5 || len(groups[3]) != 5 {
			t.Fatalf("%q: want four groups of five", s)
		}
		if rest := strings.Trim(strings.ReplaceAll(s, "-", ""), readable); rest != "" {
			t.Fatalf("%q has %q", s, rest)
		}
		if seen[s] {
			t.Fatalf("%q came twice", s)
		}
		seen[s] = true
	}
}

package keys

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func TestScheduleValidate(t *testing.T) {
	if err := DefaultSchedule().Validate(); err != nil {
		t.Error(err)
	}
	err := Schedule{PublishAhead: 16 * time.Minute, Sign: time.Minute, Retire: 0}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three faults, reported: %v", err)
	}
}

// For any valid schedule: at every time until the second key's end exactly one
// key signs; the second was published a JWK Set's age before; and each stays
// published while what it signed may be valid.
func TestFirstKeysLeaveNoGap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(rng.Int64N(int64(most-least))).Truncate(time.Millisecond)
	}
	for range 500 {
		s := Schedule{PublishAhead: between(shortestWait, 48*time.Hour), Retire: between(shortestWait, 48*time.Hour)}
		s.Sign = between(s.PublishAhead, s.PublishAhead+60*24*time.Hour)
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		var pair [2]storage.SigningKey
		s.firstKeys(&pair, testNow)

		end := pair[1].SignUntil
		times := []time.Time{testNow, pair[0].SignUntil.Add(-1), pair[0].SignUntil, end.Add(-1)}
		for range 50 {
			times = append(times, testNow.Add(between(0, end.Sub(testNow))))
		}
		for _, at := range times {
			var signing []int
			for i, k := range pair {
				if signs(k, at) {
					signing = append(signing, i)
				}
			}
			if len(signing) != 1 {
				t.Fatalf("%d keys sign at %v under %+v", len(signing), at, s)
			}
			k := pair[signing[0]]
			if signing[0] == 1 && !published(k, at.Add(-shortestWait)) {
				t.Fatalf("signs at %v and was not published in time under %+v", at, s)
			}
			if !published(k, at.Add(shortestWait)) {
				t.Fatalf("signs at %v and is gone before the token expires under %+v", at, s)
			}
		}
	}
}

func TestState(t *testing.T) {
	hour := func(h int) time.Time { return testNow.Add(time.Duration(h) * time.Hour) }
	k := storage.SigningKey{PublishAt: hour(1), SignFrom: hour(2), SignUntil: hour(3), RemoveAt: hour(4)}
	for h, want := range []State{StateNext, StateNext, StateActive, StateRetired, StateRemoved, StateRemoved} {
		if got := state(k, hour(h)); got != want {
			t.Errorf("after %d hours: %s, want %s", h, got, want)
		}
	}
	k.CompromisedAt = hour(2)
	for h := range 6 {
		if got := state(k, hour(h)); got != StateCompromised {
			t.Errorf("compromised, after %d hours: %s", h, got)
		}
	}
}

func TestKeyInfoIsWhatTheCommandLinePrints(t *testing.T) {
	at := testNow
	got, err := json.Marshal(KeyInfo{KID: "k", Alg: ES256, Purpose: PurposeToken, State: StateNext, PublishAt: at, SignFrom: at, SignUntil: at, RemoveAt: at})
	if err != nil {
		t.Fatal(err)
	}
	const z = `"2027-03-01T12:00:00Z"`
	want := `{"kid":"k","alg":"ES256","purpose":"token","state":"next","publish_at":` + z + `,"sign_from":` + z + `,"sign_until":` + z + `,"remove_at":` + z + `}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUnknownAlgorithmMakesNoKey(t *testing.T) {
	if _, _, err := makeMissing(t.Context(), inventory{}, testSealer(), testNow, DefaultSchedule(), []string{ES256, "HS256"}); err == nil {
		t.Error("made")
	}
}

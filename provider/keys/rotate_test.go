package keys

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

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
	if err := newSigningKey(t.Context(), &storage.SigningKey{Alg: "HS256", Purpose: PurposeToken}, testSealer()); err == nil {
		t.Error("made")
	}
}

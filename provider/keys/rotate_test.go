package keys

import (
	"encoding/json"
	"reflect"
	"slices"
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

// An operator sees what happened: a row provides for a clock that is behind,
// and for a life that a compromise cut short.
func TestKeyInfoTellsWhatHappened(t *testing.T) {
	at := func(h int) time.Time { return testNow.Add(time.Duration(h) * time.Hour) }
	k := storage.SigningKey{CreatedAt: at(0), PublishAt: at(-1), SignFrom: at(-1), SignUntil: at(10), RemoveAt: at(12)}
	for _, test := range []struct {
		what                             string
		compromised                      time.Time
		signFrom, signUntil, removeAt    time.Time
		wantFrom, wantUntil, wantRemoved time.Time
	}{
		{"dated back", time.Time{}, at(-1), at(10), at(12), at(0), at(10), at(12)},
		{"compromised while it signed", at(5), at(1), at(10), at(12), at(1), at(5), at(5)},
		{"compromised when it had retired", at(11), at(1), at(10), at(12), at(1), at(10), at(11)},
		{"compromised before its turn", at(5), at(6), at(10), at(12), time.Time{}, time.Time{}, at(5)},
		{"compromised without an end", at(5), at(1), time.Time{}, time.Time{}, at(1), at(5), at(5)},
	} {
		k.CompromisedAt, k.SignFrom, k.SignUntil, k.RemoveAt = test.compromised, test.signFrom, test.signUntil, test.removeAt
		i := info(k, at(20))
		if !i.PublishAt.Equal(at(0)) || !i.SignFrom.Equal(test.wantFrom) || !i.SignUntil.Equal(test.wantUntil) || !i.RemoveAt.Equal(test.wantRemoved) {
			t.Errorf("%s: %+v", test.what, i)
		}
	}
}

func TestUnknownAlgorithmMakesNoKey(t *testing.T) {
	if err := newSigningKey(t.Context(), &storage.SigningKey{Alg: "HS256", Purpose: PurposeToken}, testSealer()); err == nil {
		t.Error("made")
	}
}

// A job that comes late makes the successor late: the key before it signs until
// the successor was published as long as any other.
func TestLateSuccessorIsPublishedAsLong(t *testing.T) {
	s := DefaultSchedule()
	rows := testRows(t)
	active, next := rows.of(ES256)
	for _, before := range []time.Duration{48 * time.Hour, 24 * time.Hour, time.Hour, time.Millisecond} {
		now := next.SignUntil.Add(-before)
		d := draft{keys: []storage.SigningKey{*active, *next}}
		d.fill(s, slotOf(*next), now)
		if len(d.keys) != 3 {
			t.Fatalf("%v before the end: %d keys", before, len(d.keys))
		}
		last, late := d.keys[1], d.keys[2]
		if late.PublishAt.After(now) || late.SignFrom.Sub(now) < s.PublishAhead || !last.SignUntil.Equal(late.SignFrom) || !last.RemoveAt.Equal(last.SignUntil.Add(s.Retire)) {
			t.Errorf("%v before the end: %+v, then %+v", before, last, late)
		}
	}
}

// A process whose clock is behind finds the key whose turn it is destroyed
// already: it leaves the next one's time alone.
func TestClockBehindMovesNothing(t *testing.T) {
	s := DefaultSchedule()
	rows := testRows(t)
	active, next := rows.of(ES256)
	d := draft{keys: []storage.SigningKey{*active, *next}}
	turn := next.SignFrom
	d.fill(s, slotOf(*next), turn) // the successor
	d.keys[0].SealedPrivate = nil
	before := slices.Clone(d.keys)
	d.fill(s, slotOf(*next), turn.Add(-2*s.Allowance))
	if !reflect.DeepEqual(before, d.keys) {
		t.Errorf("from %+v\nto %+v", before, d.keys)
	}
}

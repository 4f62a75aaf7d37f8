package revocation

import (
	"bytes"
	"testing"
	"time"
)

func TestKeySeparatesKinds(t *testing.T) {
	a, b := Key(KindSession, "x"), Key(KindClient, "x")
	if bytes.Equal(a.Hash, b.Hash) {
		t.Fatal("a session and a client of the same name share a hash")
	}
	if len(a.Hash) != hashSize {
		t.Fatalf("hash has %d bytes, want %d", len(a.Hash), hashSize)
	}
}

func TestRefuses(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600e6, time.UTC)
	until := at.Add(time.Hour)
	for _, tc := range []struct {
		name     string
		entry    string
		issuedAt time.Time
		want     bool
	}{
		{"block refuses older", EffectBlock, at.Add(-time.Minute), true},
		{"block refuses newer", EffectBlock, at.Add(time.Minute), true},
		{"epoch refuses older", EffectEpoch, at.Add(-time.Minute), true},
		{"epoch refuses the same second, which may be older", EffectEpoch, at.Truncate(time.Second), true},
		{"epoch refuses what may be from before its commit", EffectEpoch, at.Add(EpochAhead).Truncate(time.Second), true},
		{"epoch accepts the second after", EffectEpoch, at.Add(EpochAhead).Truncate(time.Second).Add(time.Second), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := Block(KindSubject, "s", "", at, until)
			if tc.entry == EffectEpoch {
				r = Epoch(KindSubject, "s", "", at, until)
			}
			if got := Refuses(r, tc.issuedAt); got != tc.want {
				t.Fatalf("Refuses = %v, want %v", got, tc.want)
			}
		})
	}
}

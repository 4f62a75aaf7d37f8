package revocation

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// What a snapshot holds: the latest entry for each thing, if it has not ended,
// and nothing that an ended one had replaced.
func TestSnapshotCounts(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		now := f.now()
		later := now.Add(time.Hour)
		f.append(t,
			Block(KindSubject, "enabled again", "", now, later),
			Epoch(KindSubject, "enabled again", "", now.Add(-time.Minute), later),
			Block(KindSubject, "its epoch has ended", "", now, later),
			Epoch(KindSubject, "its epoch has ended", "", now, now.Add(-time.Second)),
			Epoch(KindClient, "blocked at last", "", now, later),
			Block(KindClient, "blocked at last", "", now, later),
			Block(KindToken, "ended", "", now, now.Add(-time.Second)),
			Block(KindToken, "one", "", now, now.Add(time.Minute)),
			Block(KindToken, "two", "", now, now.Add(time.Minute)),
			Block(KindKey, "for ever", "", now, time.Time{}),
		)
		s, err := f.open(t).Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][2]int64{ // hash: effect and not_before
			string(Key(KindSubject, "enabled again").Hash):  {2, now.Add(EpochAhead - time.Minute).UnixMilli()},
			string(Key(KindClient, "blocked at last").Hash): {1, 0},
			string(Key(KindToken, "one").Hash):              {1, 0},
			string(Key(KindToken, "two").Hash):              {1, 0},
			string(Key(KindKey, "for ever").Hash):           {1, 0},
		}
		var groups []string
		for rest := s.Body; len(rest) > 0; {
			effect, until, n := rest[1], int64(binary.BigEndian.Uint64(rest[2:])), binary.BigEndian.Uint32(rest[10:])
			groups = append(groups, string(rest[:10]))
			if until%60_000 != 0 || until != 0 && until < now.UnixMilli() {
				t.Errorf("a group until %d", until)
			}
			rest = rest[14:]
			for range n {
				e := [2]int64{int64(effect), 0}
				hash := string(rest[:16])
				if rest = rest[16:]; effect == 2 {
					e[1] = int64(binary.BigEndian.Uint64(rest))
					rest = rest[8:]
				}
				if w, ok := want[hash]; !ok || w != e {
					t.Errorf("entry %x is %v, want %v", hash, e, w)
				}
				delete(want, hash)
			}
		}
		if len(want) > 0 || !slices.IsSorted(groups) {
			t.Errorf("%d entries are missing; sorted: %t", len(want), slices.IsSorted(groups))
		}
	})
}

package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A table agrees with a plain map, whatever is put in, in whatever order, and the
// tables before it stay as they were.
func TestTableAgreesWithAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	model := map[revocationKey]record{}
	now := &table{}
	type past struct {
		table *table
		model map[revocationKey]record
	}
	var history []past
	check := func(table *table, model map[revocationKey]record) {
		t.Helper()
		if table.size != len(model) {
			t.Fatalf("%d entries, want %d", table.size, len(model))
		}
		for key, want := range model {
			if got := table.find(&key); got == nil || *got != want {
				t.Fatalf("%v is %v, want %v", key, got, want)
			}
			other := key
			other.kind = other.kind%kindIssuer + 1
			if _, there := model[other]; !there && table.find(&other) != nil {
				t.Fatalf("%v is another kind", other)
			}
		}
	}
	for round := range 200 {
		var records []record
		for range random.IntN(40) {
			// Few values, in few shards, so that keys and neighbours meet.
			key := revocationKey{hi: random.Uint64N(4)<<61 | random.Uint64N(8), lo: random.Uint64N(3), kind: uint32(random.IntN(kindIssuer)) + 1}
			effect, notBefore := uint32(effectBlock), int64(0)
			if random.IntN(2) == 0 {
				effect, notBefore = effectEpoch, random.Int64N(1<<40)
			}
			r, err := newRecord(key, effect, notBefore, uint32(random.IntN(30)))
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
			model[key] = r
		}
		now = now.with(records)
		if round%10 == 9 {
			minute := uint32(random.IntN(20))
			now = now.at(minute)
			for key, r := range model {
				if f := r.forget(); f != 0 && f <= minute {
					delete(model, key)
				}
			}
		}
		check(now, model)
		if round%20 == 0 {
			copied := map[revocationKey]record{}
			for key, r := range model {
				copied[key] = r
			}
			history = append(history, past{now, copied})
		}
	}
	for _, p := range history {
		check(p.table, p.model)
	}
	last := history[len(history)-1]
	both := stricterOf(now, last.table)
	for key, r := range last.model {
		if mine, there := model[key]; there {
			r = mine.stricter(r)
		}
		if got := both.find(&key); got == nil || *got != r {
			t.Fatalf("%v is %v, want %v", key, got, r)
		}
	}
	if both.size < now.size {
		t.Error("lost entries")
	}
}

func TestStricter(t *testing.T) {
	of := func(effect uint32, notBefore int64, forget uint32) record {
		r, err := newRecord(revocationKey{1, 2, kindSubject}, effect, notBefore*1000, forget)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, r := range []struct{ a, b, want record }{
		{of(effectBlock, 0, 5), of(effectEpoch, 9, 7), of(effectBlock, 0, 7)},
		{of(effectBlock, 0, 7), of(effectEpoch, 9, 5), of(effectBlock, 0, 7)},
		{of(effectBlock, 0, 7), of(effectEpoch, 9, 0), of(effectBlock, 0, 0)},
		{of(effectEpoch, 9, 5), of(effectEpoch, 8, 7), of(effectEpoch, 9, 7)},
		{of(effectEpoch, 9, 0), of(effectEpoch, 8, 7), of(effectEpoch, 9, 0)},
		{of(effectBlock, 0, 5), of(effectBlock, 0, 7), of(effectBlock, 0, 7)},
		{of(effectBlock, 0, 5), of(effectBlock, 0, 0), of(effectBlock, 0, 0)},
	} {
		if got := r.a.stricter(r.b); got != r.want {
			t.Errorf("%v, %v: %v", r.a, r.b, got)
		}
		if got := r.b.stricter(r.a); got != r.want {
			t.Errorf("%v, %v: %v", r.b, r.a, got)
		}
	}
}

func TestTimesBeyondARecord(t *testing.T) {
	if _, err := newRecord(revocationKey{}, effectEpoch, 1<<53, 1); err == nil {
		t.Error("an epoch in the year 287396")
	}
	if got := forgetAt(time.Minute, 1<<62, 1); got != 0 {
		t.Errorf("forgotten at minute %d", got)
	}
	for want, d := range map[uint32]time.Duration{1: 0, 2: time.Minute + 1, 3: 3 * time.Minute} {
		if got := minutes(d); got != want {
			t.Errorf("%v: minute %d", d, got)
		}
	}
}

// filled returns the body of a snapshot of n random blocks, and its header.
func filled(n int) (*snapshotHeader, []byte) {
	random := rand.New(rand.NewPCG(3, 4))
	at := time.Now().UnixMilli()
	body := []byte{kindToken, effectBlock}
	body = binary.BigEndian.AppendUint64(body, uint64(at+1_000_000))
	body = binary.BigEndian.AppendUint32(body, uint32(n))
	for range 2 * n {
		body = binary.BigEndian.AppendUint64(body, random.Uint64())
	}
	sum := sha256.Sum256(body)
	return &snapshotHeader{about: about{ReadAt: at}, Count: int64(n), Size: int64(len(body)), SHA256: base64.RawURLEncoding.EncodeToString(sum[:])}, body
}

func BenchmarkSnapshotLoad(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h, body := filled(n)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.readRecords(bytes.NewReader(body), 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBatchApply adds a batch of one entry, and of a thousand, to a table.
func BenchmarkBatchApply(b *testing.B) {
	for _, n := range []int{0, 1_000_000} {
		h, body := filled(n)
		t := &table{}
		if n > 0 {
			var err error
			if t, err = h.readRecords(bytes.NewReader(body), 0); err != nil {
				b.Fatal(err)
			}
		}
		for _, size := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%d to %d", size, n), func(b *testing.B) {
				random := rand.New(rand.NewPCG(5, 6))
				records := make([]record, size)
				for i := range records {
					records[i] = record{hi: random.Uint64(), lo: random.Uint64(), meta: 17<<4 | kindToken<<1}
				}
				b.ReportAllocs()
				for b.Loop() {
					t.with(records)
				}
			})
		}
	}
}

// BenchmarkRefuses looks up a token with all six keys and its issuer.
func BenchmarkRefuses(b *testing.B) {
	c := &Claims{id: "t", grantID: "g", sessionID: "s", subject: "u", clientID: "c", issuedAt: 1}
	c.revocable("k")
	issuer := keyOf(kindIssuer, "https://id.example")
	for _, n := range []int{0, 1_000, 1_000_000} {
		h, body := filled(max(n, 1))
		t, err := h.readRecords(bytes.NewReader(body), 0)
		if err != nil {
			b.Fatal(err)
		}
		if n == 0 {
			t = &table{}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if t.refuses(c, &issuer) {
					b.Fatal("refused")
				}
			}
		})
	}
}

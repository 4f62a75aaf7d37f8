package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
)

// TestModel does anything in any order, to feed, network and clock, and holds the
// verifier to what must be true whatever has happened:
//
//  1. What it says is fresh has been shown to be current within the last 15 s, by
//     a heartbeat or batch that was truly new.
//  2. While it is fresh, it knows everything that the feed held when that was
//     signed; and always everything up to the entry it says it has read.
//  3. A token that nothing concerns, or has concerned lately, is never refused.
//  4. What it has once refused for a block it refuses for as long as the entry
//     lasts, unless a later entry lifts it or the feed is another.
//  5. Left alone, it is fresh again and agrees with the feed.
func TestModel(t *testing.T) {
	rounds := 10
	if *long {
		rounds = 500
	}
	for seed := range rounds {
		inBubble(t, fmt.Sprint(seed), func(t *testing.T, ctx context.Context) {
			newModel(t, ctx, uint64(seed)).run(120)
		})
		if t.Failed() {
			return
		}
	}
}

// subjects are few, so that entries meet.
const subjects = 6

type model struct {
	*world
	random *rand.Rand
	chance *rand.Rand // of what disturb does, under mu
	steps  []string

	// What the feed says of each subject: the latest entry.
	entries [subjects]struct {
		block  bool
		before int64 // of epochs, Unix seconds
		until  time.Time
	}
	appended [subjects]time.Time // when that was
	numbers  [subjects]int64     // and its number, 0 in another feed
	longest  [subjects]time.Time // when the last of all that was ever said of it ends
	seqs     []time.Time         // when each entry was appended
	feeds    int

	mu        sync.Mutex      // over what the feed's goroutines use too
	disturbed bool            // messages are changed on their way
	silent    bool            // nothing gets through
	genuine   []sent          // what got through as it was signed
	refused   [subjects]int64 // iat up to which a subject was last refused, since the entry
}

type sent struct {
	at   time.Time
	seq  int64
	feed any
}

func (m *model) sent(message string) {
	claims := claimsOf(message)
	seq := claims["seq"]
	if seq == nil {
		seq = claims["to"]
	}
	n, err := seq.(json.Number).Int64()
	if err != nil {
		panic(err)
	}
	m.genuine = append(m.genuine, sent{time.Now(), n, claims["feed_id"]})
}

func newModel(t *testing.T, ctx context.Context, seed uint64) *model {
	m := &model{world: newWorld(t), random: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2))}
	m.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
		m.mu.Lock()
		silent := m.silent
		m.mu.Unlock()
		if silent {
			<-r.Context().Done()
		}
		return silent
	}
	m.feed.Edit = func(typ, message string) []string {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.disturbed {
			m.sent(message)
			return []string{message}
		}
		return m.disturb(typ, message)
	}
	m.start(ctx)
	return m
}

// disturb changes a message on its way as somebody without the key could, or a
// replica that is broken.
func (m *model) disturb(typ, message string) []string {
	switch m.chance.IntN(7) {
	case 0:
		return nil // lost
	case 1:
		m.sent(message)
		return []string{message, message} // twice
	case 2:
		return []string{message[:len(message)-8] + "AAAAAAAA"} // forged
	case 3:
		return []string{m.altered(typ, message, func(c map[string]any) { c["read_at"] = time.Now().Add(-time.Hour).UnixMilli() })}
	case 4:
		return []string{m.altered(typ, message, func(c map[string]any) {
			if c["prev"] != nil {
				c["prev"] = strings.Repeat("A", 43)
			} else {
				c["chain"] = strings.Repeat("A", 43)
			}
		})}
	case 5:
		return []string{"garbage"}
	default:
		m.sent(message)
		return []string{message}
	}
}

func (m *model) step() {
	note := func(format string, args ...any) { m.steps = append(m.steps, fmt.Sprintf(format, args...)) }
	switch m.random.IntN(16) {
	case 0, 1, 2, 3:
		i, life := m.random.IntN(subjects), time.Duration(1+m.random.IntN(20))*time.Minute
		m.entries[i].block, m.entries[i].until = true, time.Now().Add(life)
		m.feed.Block("sub", m.subject(i), life)
		m.entered(i)
		note("block %d for %v", i, life)
	case 4, 5:
		i, life := m.random.IntN(subjects), time.Duration(1+m.random.IntN(20))*time.Minute
		m.entries[i].block, m.entries[i].before, m.entries[i].until = false, time.Now().Unix(), time.Now().Add(life)
		m.feed.Epoch("sub", m.subject(i), time.Now(), life)
		m.entered(i)
		note("epoch %d for %v", i, life)
	case 6:
		m.toggle(&m.silent)
		m.feed.Cut()
		note("silent: %v", m.silent)
	case 7, 8:
		m.toggle(&m.disturbed)
		note("disturbed: %v", m.disturbed)
	case 9:
		m.feed.Cut()
		note("cut")
	case 10:
		m.feed.Compact()
		note("compact")
	case 11:
		if m.random.IntN(4) == 0 {
			m.feeds++
			m.feed.Restart(fmt.Sprintf("F%d", m.feeds+1))
			m.seqs = nil
			for i := range m.entries {
				m.entries[i].until, m.refused[i], m.numbers[i] = time.Time{}, 0, 0
			}
			note("restored")
		}
	default:
		d := time.Duration(m.random.IntN(12_000)) * time.Millisecond
		note("%v pass", d)
		after(d)
	}
	after(0)
	m.check()
}

// toggle turns a switch that the feed's goroutines look at.
func (m *model) toggle(on *bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*on = !*on
}

func (m *model) entered(i int) {
	m.appended[i], m.refused[i] = time.Now(), 0
	if until := m.entries[i].until; until.After(m.longest[i]) {
		m.longest[i] = until
	}
	m.seqs = append(m.seqs, time.Now())
	m.numbers[i] = int64(len(m.seqs))
}

func (m *model) subject(i int) string { return fmt.Sprint("u", i) }

// concerned reports whether the feed has a token of a subject refused.
func (m *model) concerned(i int, iat int64) bool {
	e := m.entries[i]
	return time.Now().Before(e.until) && (e.block || iat <= e.before)
}

func (m *model) check() {
	m.t.Helper()
	fail := func(format string, args ...any) {
		m.t.Helper()
		m.t.Fatalf(format+"\n%+v\n%s", append(args, m.v.Revocation(), strings.Join(m.steps, "\n"))...)
	}
	s := m.v.Revocation()
	if s.State == verify.RevocationFresh {
		// 1 and 2: something genuine came as lately as it says, and what it held is known.
		shown := time.Now().Add(-s.Age)
		if s.Age > 15*time.Second+time.Millisecond {
			fail("fresh, though nothing has come for %v", s.Age)
		}
		m.mu.Lock()
		genuine := slices.Clone(m.genuine)
		m.mu.Unlock()
		if !slices.ContainsFunc(genuine, func(g sent) bool {
			return g.at.Sub(shown).Abs() < time.Millisecond && g.seq <= s.Seq && g.feed == s.FeedID
		}) {
			fail("fresh by nothing genuine, %v ago", s.Age)
		}
	}
	for i := range subjects {
		for _, age := range []time.Duration{0, 30 * time.Second, 5 * time.Minute} {
			iat := time.Now().Add(-age).Unix()
			err := verdict(m.v, m.token(set("sub", m.subject(i)), set("iat", iat), set("jti", fmt.Sprint(m.random.Uint64()))))
			known := m.knows(i, s)
			switch {
			case err == nil && known && m.concerned(i, iat):
				fail("subject %d, %v old: accepted: %+v, entry %d of %v ago, %v left", i, age, m.entries[i], m.numbers[i], time.Since(m.appended[i]), time.Until(m.entries[i].until))
			case err != nil && !m.ever(i):
				fail("subject %d, %v old: refused (%v), and nothing was ever said of it", i, age, err)
			case err != nil && time.Now().After(m.longest[i].Add(2*time.Minute)) && s.State == verify.RevocationFresh:
				fail("subject %d, %v old: refused (%v) long after its entries", i, age, err)
			}
			// 4: what is refused stays refused.
			if err != nil && m.concerned(i, iat) {
				m.refused[i] = max(m.refused[i], iat)
			} else if err == nil && m.concerned(i, iat) && iat <= m.refused[i] {
				fail("subject %d, %v old: accepted, and was refused before", i, age)
			}
		}
	}
}

// knows reports whether the verifier must know the latest entry of a subject: it
// says that it has read so far, or is fresh by what was signed later.
func (m *model) knows(i int, s verify.RevocationStats) bool {
	if m.numbers[i] == 0 || s.FeedID != fmt.Sprintf("F%d", m.feeds+1) {
		return false
	}
	return s.Seq >= m.numbers[i] || s.State == verify.RevocationFresh && m.appended[i].Before(time.Now().Add(-s.Age))
}

func (m *model) ever(i int) bool { return !m.appended[i].IsZero() }

func (m *model) run(steps int) {
	for range steps {
		m.step()
	}
	for _, on := range []*bool{&m.silent, &m.disturbed} {
		if *on {
			m.toggle(on)
		}
	}
	m.feed.Cut()
	after(2 * time.Minute)
	m.check()
	m.state(verify.RevocationFresh)
	now := time.Now().Unix()
	for i := range subjects {
		err := verdict(m.v, m.token(set("sub", m.subject(i))))
		// A broken chain is reason to keep what was known before, for as long as that
		// lasts, though a later entry lifts it.
		if concerned := m.concerned(i, now); err == nil && concerned || err != nil && !concerned && time.Now().After(m.longest[i].Add(2*time.Minute)) {
			m.t.Errorf("subject %d: %v\n%s", i, err, strings.Join(m.steps, "\n"))
		}
	}
	if s := m.v.Revocation(); s.Seq != int64(len(m.seqs)) {
		m.t.Errorf("%+v, want %d entries\n%s", s, len(m.seqs), strings.Join(m.steps, "\n"))
	}
}

package proof

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history is what clients noted of their dealings with the servers; judge
// holds it against what one authorization may go through, as if all of it had
// happened one after the other (linearizability). It knows nothing of the
// servers but this file.

// kind is what a client asked for.
type kind string

const (
	approve kind = "approve" // the person allows it; answered with a code
	redeem  kind = "redeem"  // input: the code; answered with a refresh token
	refresh kind = "refresh" // input: a refresh token; answered with the next
)

// outcome is how it was answered.
type outcome string

const (
	granted outcome = "granted"
	refused outcome = "refused"
	unknown outcome = "unknown" // the connection broke, or 503: it may have happened
)

// op is one request and its answer.
type op struct {
	flow    int           // the authorization it belongs to
	window  time.Duration // in which its app may repeat a refresh
	kind    kind
	input   string
	outcome outcome
	output  string    // a code or a refresh token, when granted
	call    time.Time // when it was sent
	end     time.Time // when the answer came, or the connection broke
}

func (o op) String() string {
	return fmt.Sprintf("%s – %s  %s(%s) %s %s", o.call.Format("05.000"), o.end.Format("05.000"), o.kind, short(o.input), o.outcome, short(o.output))
}

// short is enough of a code or token to tell it from others.
func short(token string) string {
	if len(token) > 12 {
		return token[:4] + "…" + token[len(token)-6:]
	}
	return token
}

// log collects what all clients note.
type history struct {
	mu  sync.Mutex
	ops []op
}

func (h *history) add(o op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// count says how many operations ended how.
func (h *history) count() string {
	n := make(map[string]int)
	for _, o := range h.ops {
		n[string(o.kind)+" "+string(o.outcome)]++
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%d %s", n[name], name))
	}
	return strings.Join(parts, ", ")
}

const (
	// codeLifetime is the server's; slack is how far its clock's milliseconds
	// and ours may be apart.
	codeLifetime = time.Minute
	slack        = time.Second
	// nobodyKnows stands for a code or token of which the answer was lost.
	nobodyKnows = "?"
)

// authorization is the state of one of them. It is comparable.
type authorization struct {
	code    string // "" before the approval
	tokens  string // the refresh token of each generation, each after a space
	revoked bool
	// When the last change to code or tokens happened: not before, not after.
	since, until time.Time
}

func (a authorization) list() []string { return strings.Fields(a.tokens) }

// with returns the authorization after an operation that made the token its newest.
func (a authorization) with(o op, token string) authorization {
	a.tokens += " " + cmp.Or(token, nobodyKnows)
	return a.changed(o)
}

func (a authorization) changed(o op) authorization {
	a.since, a.until = o.call, o.end
	if o.outcome == unknown { // it can still be under way when the connection has broken
		a.until = time.Time{}
	}
	return a
}

func (a authorization) dead() authorization {
	a.revoked = true
	return a
}

// mayBeOver says whether so much time can have passed since the last change
// when the operation was decided; isOver whether it has for certain.
func (a authorization) mayBeOver(o op, limit time.Duration) bool {
	return o.end.Sub(a.since) > limit-slack
}

func (a authorization) isOver(o op, limit time.Duration) bool {
	return !a.until.IsZero() && o.call.Sub(a.until) > limit+slack
}

// step returns what the authorization may be after the operation, nothing when
// the operation cannot have been answered like that.
func (a authorization) step(o op) (after []authorization) {
	may := func(allowed bool, next authorization) {
		if allowed {
			after = append(after, next)
		}
	}
	used := a.tokens != ""
	switch o.kind {
	case approve:
		fresh := authorization{code: cmp.Or(o.output, nobodyKnows)}.changed(o)
		switch {
		case o.outcome == granted:
			may(a.code == "", fresh)
			// The same approval again: the identical answer, while it is worth something.
			same := a
			same.code = o.output
			may((a.code == o.output || a.code == nobodyKnows) && !used && !a.revoked && !a.isOver(o, codeLifetime), same)
		case o.outcome == refused:
			may(a.code != "" && (used || a.revoked || a.mayBeOver(o, codeLifetime)), a)
		default:
			may(true, a)
			may(a.code == "", fresh)
		}
	case redeem:
		valid := a.code == o.input && !used && !a.revoked
		switch {
		case o.outcome == granted:
			may(valid && !a.isOver(o, codeLifetime), a.with(o, o.output))
		case o.outcome == refused:
			may(a.code == o.input && used, a.dead()) // a replay ends the family
			may(a.revoked || a.code != o.input, a)
			may(valid && a.mayBeOver(o, codeLifetime), a)
		default:
			may(true, a)
			may(valid, a.with(o, ""))
			may(a.code == o.input && used, a.dead())
		}
	case refresh:
		list := a.list()
		at, last := slices.Index(list, o.input), len(list)-1
		current := at >= 0 && at == last && !a.revoked
		repeats := at >= 0 && at == last-1 && !a.revoked && o.window > 0
		reuse := at >= 0 && at < last && !a.revoked
		switch {
		case o.outcome == granted:
			may(current && !slices.Contains(list, o.output), a.with(o, o.output))
			if repeats && !a.isOver(o, o.window) && (list[last] == o.output || list[last] == nobodyKnows) {
				same := a
				same.tokens = " " + strings.Join(append(slices.Clone(list[:last]), o.output), " ")
				may(true, same)
			}
		case o.outcome == refused:
			may(at < 0 || a.revoked, a)
			may(reuse && (!repeats || a.mayBeOver(o, o.window)), a.dead())
		default:
			may(true, a)
			may(current, a.with(o, ""))
			may(reuse && (!repeats || a.mayBeOver(o, o.window)), a.dead())
		}
	}
	return after
}

// judge returns what is wrong with the history: of each authorization that
// cannot have gone like that, all that was noted of it.
func judge(ops []op) (wrong []string) {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{authorization{}} },
		Step: func(state, input, _ any) []any {
			var after []any
			for _, a := range state.(authorization).step(input.(op)) {
				after = append(after, a)
			}
			return after
		},
	}
	sequential := model.ToModel()
	flows := make(map[int][]op)
	for _, o := range ops {
		flows[o.flow] = append(flows[o.flow], o)
	}
	for _, flow := range slices.Sorted(maps.Keys(flows)) {
		var events []porcupine.Operation
		for _, o := range flows[flow] {
			e := porcupine.Operation{Input: o, Call: o.call.UnixNano(), Return: o.end.UnixNano()}
			if o.outcome == unknown {
				e.Return = math.MaxInt64
			}
			events = append(events, e)
		}
		if result := porcupine.CheckOperationsTimeout(sequential, events, time.Minute); result != porcupine.Ok {
			text := fmt.Sprintf("authorization %d: %s", flow, result)
			for _, o := range flows[flow] {
				text += "\n\t" + o.String()
			}
			wrong = append(wrong, text)
		}
	}
	return wrong
}

// TestJudge proves the judge: it convicts a history for each rule that it
// breaks, and lets pass what may happen.
func TestJudge(t *testing.T) {
	t.Parallel()
	const window, strict = 30 * time.Second, time.Duration(0)
	// Each line is an operation: kind, input, outcome, output, and the seconds
	// at which it was called and ended. Without them it follows the one before.
	for _, test := range []struct {
		name   string
		window time.Duration
		right  bool
		ops    string
	}{
		{"a life", window, true, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r3`},
		{"another code for the same approval", window, false, `approve - granted c; approve - granted d`},
		{"the same code for the same approval", window, true, `approve - granted c; approve - granted c; redeem c granted r1`},
		{"an approval refused for no reason", window, false, `approve - refused -`},
		{"an approval refused once the code is used", window, true, `approve - granted c; redeem c granted r1; approve - refused -`},
		{"an approval granted once the code is used", window, false, `approve - granted c; redeem c granted r1; approve - granted c`},
		{"an approval repeated after its answer was lost", window, true, `approve - unknown -; approve - granted c; approve - granted c; redeem c granted r1`},
		{"an approval refused after its answer was lost", window, false, `approve - unknown -; approve - refused -`},
		{"an approval refused after its answer was lost long ago", window, true, `approve - unknown - 0 1; approve - refused - 62 63`},
		{"a code twice", window, false, `approve - granted c; redeem c granted r1; redeem c granted s1`},
		{"a code twice, the same answer", window, false, `approve - granted c; redeem c granted r1; redeem c granted r1`},
		{"a code twice at once", window, false, `approve - granted c; redeem c granted r1 3 5; redeem c granted s1 3 5`},
		{"a code by two at once, one refused, the family dead", window, true, `approve - granted c; redeem c granted r1 3 5; redeem c refused - 3 5; refresh r1 refused -`},
		{"a code by two at once, one refused, the family alive", window, false, `approve - granted c; redeem c granted r1 3 5; redeem c refused - 3 5; refresh r1 granted r2`},
		{"a code refused for no reason", window, false, `approve - granted c; redeem c refused -`},
		{"a code that has expired", window, true, `approve - granted c 0 1; redeem c refused - 62 63`},
		{"a code granted after it has expired", window, false, `approve - granted c 0 1; redeem c granted r1 63 64`},
		{"a code replayed, the family alive", window, false, `approve - granted c; redeem c granted r1; redeem c refused -; refresh r1 granted r2`},
		{"a code replayed, the family dead", window, true, `approve - granted c; redeem c granted r1; redeem c refused -; refresh r1 refused -`},
		{"a code whose answer was lost, redeemed", window, true, `approve - granted c; redeem c unknown -; redeem c granted r1; refresh r1 granted r2`},
		{"a code whose answer was lost, refused", window, true, `approve - granted c; redeem c unknown -; redeem c refused -; redeem c refused -`},
		{"a code that nobody was given", window, false, `redeem c granted r1`},
		{"a refresh token that is lost", window, false, `approve - granted c; redeem c granted r1; refresh r1 refused -`},
		{"a refreshed token that is lost", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 refused -`},
		{"a rotation that is lost", strict, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r1 granted r2`},
		{"a repeat", window, true, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r1 granted r2; refresh r2 granted r3`},
		{"a repeat with another successor", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r1 granted s2`},
		{"a repeat at once with another successor", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2 5 8; refresh r1 granted s2 5 8`},
		{"a repeat refused", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r1 refused -`},
		{"a repeat refused, by an app without a window", strict, true, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r1 refused -; refresh r2 refused -`},
		{"a repeat refused, by an app without a window, the family alive", strict, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r1 refused -; refresh r2 granted r3`},
		{"a repeat after the window", window, false, `approve - granted c 0 1; redeem c granted r1 2 3; refresh r1 granted r2 4 5; refresh r1 granted r2 37 38`},
		{"a repeat refused after the window", window, true, `approve - granted c 0 1; redeem c granted r1 2 3; refresh r1 granted r2 4 5; refresh r1 refused - 37 38; refresh r2 refused -`},
		{"a refresh whose answer was lost, repeated twice", window, true, `approve - granted c; redeem c granted r1; refresh r1 unknown -; refresh r1 granted r2; refresh r1 granted r2; refresh r2 granted r3`},
		{"a refresh whose answer was lost, refused", window, false, `approve - granted c; redeem c granted r1; refresh r1 unknown -; refresh r1 refused -`},
		{"a refresh whose answer was lost, refused without a window", strict, true, `approve - granted c; redeem c granted r1; refresh r1 unknown -; refresh r1 refused -`},
		{"a refresh whose answer was lost long ago, refused", window, true, `approve - granted c; redeem c granted r1 1 2; refresh r1 unknown - 3 4; refresh r1 refused - 40 41`},
		{"reuse", window, true, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r3; refresh r1 refused -; refresh r3 refused -`},
		{"reuse granted", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r3; refresh r1 granted r2`},
		{"reuse, the family alive", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r3; refresh r1 refused -; refresh r3 granted r4`},
		{"reuse whose answer was lost, either way", window, true, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r3; refresh r1 unknown -; refresh r3 granted r4; refresh r4 granted r5`},
		{"the dead come back", window, false, `approve - granted c; redeem c granted r1; redeem c refused -; refresh r1 refused -; refresh r1 granted r2`},
		{"a token of nobody's", window, false, `approve - granted c; redeem c granted r1; refresh x granted r2`},
		{"a token of nobody's refused", window, true, `approve - granted c; redeem c granted r1; refresh x refused -; refresh r1 granted r2`},
		{"an older token as successor", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r1`},
	} {
		if wrong := judge(parse(t, test.window, test.ops)); (len(wrong) == 0) != test.right {
			t.Errorf("%s: judged right: %t, want %t %v", test.name, len(wrong) == 0, test.right, wrong)
		}
	}
}

// parse reads the operations of a row of TestJudge.
func parse(t *testing.T, window time.Duration, text string) (ops []op) {
	t.Helper()
	began, now := time.Unix(0, 0), 0
	for line := range strings.SplitSeq(text, ";") {
		f := strings.Fields(line)
		from, to := now+1, now+2
		if len(f) > 4 {
			if _, err := fmt.Sscan(f[4]+" "+f[5], &from, &to); err != nil {
				t.Fatal(err)
			}
		}
		now = to
		o := op{window: window, kind: kind(f[0]), input: strings.Trim(f[1], "-"), outcome: outcome(f[2]), output: strings.Trim(f[3], "-"),
			call: began.Add(time.Duration(from) * time.Second), end: began.Add(time.Duration(to) * time.Second)}
		ops = append(ops, o)
	}
	return ops
}

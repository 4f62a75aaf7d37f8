// Package history judges what clients noted of their dealings with servers: each
// authorization's operations are held against what one authorization may go
// through, as if all of them had happened one after the other (linearizability).
// It knows nothing of the servers but this package.
package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what a client asked for.
type Kind string

const (
	Approve Kind = "approve" // the person allows it; answered with a code
	Redeem  Kind = "redeem"  // input: the code; answered with a refresh token
	Refresh Kind = "refresh" // input: a refresh token; answered with the next
	Revoke  Kind = "revoke"  // input: a refresh token (RFC 7009); never refused
	Look    Kind = "look"    // input: an access token (RFC 7662); refused: it is not active
)

// Outcome is how it was answered.
type Outcome string

const (
	Granted Outcome = "granted"
	Refused Outcome = "refused"
	Unknown Outcome = "unknown" // the connection broke, or 503: it may have happened
)

// Op is one request and its answer.
type Op struct {
	Flow    int           // the authorization it belongs to
	Window  time.Duration // in which its app may repeat a refresh
	Kind    Kind
	Input   string
	Outcome Outcome
	Output  string    // a code or a refresh token, when granted
	Call    time.Time // when it was sent
	End     time.Time // when the answer came, or the connection broke
}

func (o Op) String() string {
	return fmt.Sprintf("%s – %s  %s(%s) %s %s", o.Call.Format("05.000"), o.End.Format("05.000"), o.Kind, short(o.Input), o.Outcome, short(o.Output))
}

// short is enough of a code or token to tell it from others.
func short(token string) string {
	if len(token) > 12 {
		return token[:4] + "…" + token[len(token)-6:]
	}
	return token
}

// Log collects what all clients note. Its zero value is empty.
type Log struct {
	mu  sync.Mutex
	ops []Op
}

// Add notes an operation.
func (h *Log) Add(o Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// Ops returns what was noted so far.
func (h *Log) Ops() []Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

// Size is how many operations were noted so far.
func (h *Log) Size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Count says how many operations ended how.
func (h *Log) Count() string {
	n := make(map[string]int)
	for _, o := range h.Ops() {
		n[string(o.Kind)+" "+string(o.Outcome)]++
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
func (a authorization) with(o Op, token string) authorization {
	a.tokens += " " + cmp.Or(token, nobodyKnows)
	return a.changed(o)
}

func (a authorization) changed(o Op) authorization {
	a.since, a.until = o.Call, o.End
	if o.Outcome == Unknown { // it can still be under way when the connection has broken
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
func (a authorization) mayBeOver(o Op, limit time.Duration) bool {
	return o.End.Sub(a.since) > limit-slack
}

func (a authorization) isOver(o Op, limit time.Duration) bool {
	return !a.until.IsZero() && o.Call.Sub(a.until) > limit+slack
}

// step returns what the authorization may be after the operation, nothing when
// the operation cannot have been answered like that.
func (a authorization) step(o Op) (after []authorization) {
	may := func(allowed bool, next authorization) {
		if allowed {
			after = append(after, next)
		}
	}
	used := a.tokens != ""
	switch o.Kind {
	case Approve:
		fresh := authorization{code: cmp.Or(o.Output, nobodyKnows)}.changed(o)
		switch {
		case o.Outcome == Granted:
			may(a.code == "", fresh)
			// The same approval again: the identical answer, while it is worth something.
			same := a
			same.code = o.Output
			may((a.code == o.Output || a.code == nobodyKnows) && !used && !a.revoked && !a.isOver(o, codeLifetime), same)
		case o.Outcome == Refused:
			may(a.code != "" && (used || a.revoked || a.mayBeOver(o, codeLifetime)), a)
		default:
			may(true, a)
			may(a.code == "", fresh)
		}
	case Redeem:
		valid := a.code == o.Input && !used && !a.revoked
		switch {
		case o.Outcome == Granted:
			may(valid && !a.isOver(o, codeLifetime), a.with(o, o.Output))
		case o.Outcome == Refused:
			may(a.code == o.Input && used, a.dead()) // a replay ends the family
			may(a.revoked || a.code != o.Input, a)
			may(valid && a.mayBeOver(o, codeLifetime), a)
		default:
			may(true, a)
			may(valid, a.with(o, ""))
			may(a.code == o.Input && used, a.dead())
		}
	case Refresh:
		list := a.list()
		at, last := slices.Index(list, o.Input), len(list)-1
		current := at >= 0 && at == last && !a.revoked
		repeats := at >= 0 && at == last-1 && !a.revoked && o.Window > 0
		reuse := at >= 0 && at < last && !a.revoked
		switch {
		case o.Outcome == Granted:
			may(current && !slices.Contains(list, o.Output), a.with(o, o.Output))
			if repeats && !a.isOver(o, o.Window) && (list[last] == o.Output || list[last] == nobodyKnows) {
				same := a
				same.tokens = " " + strings.Join(append(slices.Clone(list[:last]), o.Output), " ")
				may(true, same)
			}
		case o.Outcome == Refused:
			may(at < 0 || a.revoked, a)
			may(reuse && (!repeats || a.mayBeOver(o, o.Window)), a.dead())
		default:
			may(true, a)
			may(current, a.with(o, ""))
			may(reuse && (!repeats || a.mayBeOver(o, o.Window)), a.dead())
		}
	case Revoke: // a token that was replaced ends the family as well
		known := slices.Contains(a.list(), o.Input)
		may(o.Outcome == Granted && known, a.dead())
		may(o.Outcome == Granted && !known, a)
		may(o.Outcome == Unknown, a)
		may(o.Outcome == Unknown && known, a.dead())
	case Look: // access tokens outlive what is noted here, unless the family ends
		may(o.Outcome == Granted && used && !a.revoked, a)
		may(o.Outcome == Refused && (!used || a.revoked), a)
		may(o.Outcome == Unknown, a)
	}
	return after
}

// Judge returns what is wrong with the history: of each authorization that
// cannot have gone like that, all that was noted of it.
func Judge(ops []Op) (wrong []string) {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{authorization{}} },
		Step: func(state, input, _ any) []any {
			var after []any
			for _, a := range state.(authorization).step(input.(Op)) {
				after = append(after, a)
			}
			return after
		},
	}
	sequential := model.ToModel()
	flows := make(map[int][]Op)
	for _, o := range ops {
		flows[o.Flow] = append(flows[o.Flow], o)
	}
	for _, flow := range slices.Sorted(maps.Keys(flows)) {
		var events []porcupine.Operation
		for _, o := range flows[flow] {
			e := porcupine.Operation{Input: o, Call: o.Call.UnixNano(), Return: o.End.UnixNano()}
			if o.Outcome == Unknown {
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

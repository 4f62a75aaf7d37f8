package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

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
		{"revoked", window, true, `approve - granted c; redeem c granted r1; revoke r1 granted -; refresh r1 refused -; redeem c refused -; look a refused -`},
		{"revoked by a token that was replaced", window, true, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r3; revoke r1 granted -; refresh r3 refused -`},
		{"a revocation that is lost", window, false, `approve - granted c; redeem c granted r1; revoke r1 granted -; refresh r1 granted r2`},
		{"a revocation that a repeat gets past", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; revoke r2 granted -; refresh r1 granted r2`},
		{"a revocation while it is refreshed, first", window, true, `approve - granted c; redeem c granted r1; revoke r1 granted - 5 8; refresh r1 refused - 5 8`},
		{"a revocation while it is refreshed, second", window, true, `approve - granted c; redeem c granted r1; revoke r1 granted - 5 8; refresh r1 granted r2 5 8; refresh r2 refused -`},
		{"a revocation while it is refreshed, lost", window, false, `approve - granted c; redeem c granted r1; revoke r1 granted - 5 8; refresh r1 granted r2 5 8; refresh r2 granted r3`},
		{"a revocation whose answer was lost, done", window, true, `approve - granted c; redeem c granted r1; revoke r1 unknown -; refresh r1 refused -`},
		{"a revocation whose answer was lost, not done", window, true, `approve - granted c; redeem c granted r1; revoke r1 unknown -; refresh r1 granted r2`},
		{"a revocation whose answer was lost, done and undone", window, false, `approve - granted c; redeem c granted r1; revoke r1 unknown -; refresh r1 refused -; refresh r1 granted r2`},
		{"a revocation refused", window, false, `approve - granted c; redeem c granted r1; revoke r1 refused -`},
		{"a token of nobody's revoked", window, true, `approve - granted c; redeem c granted r1; revoke x granted -; refresh r1 granted r2`},
		{"an access token that is active", window, true, `approve - granted c; redeem c granted r1; look a granted -; refresh r1 granted r2; look a granted -`},
		{"an access token that is active before the code is used", window, false, `approve - granted c; look a granted -; redeem c granted r1`},
		{"an access token that is not active for no reason", window, false, `approve - granted c; redeem c granted r1; look a refused -; refresh r1 granted r2`},
		{"an access token that is active after a replay", window, false, `approve - granted c; redeem c granted r1; redeem c refused -; look a granted -`},
		{"an access token seen dead, then alive", window, false, `approve - granted c; redeem c granted r1; revoke r1 granted - 13 19; look a refused - 14 15; look a granted - 16 17`},
		{"an access token seen alive, then dead, while it is revoked", window, true, `approve - granted c; redeem c granted r1; revoke r1 granted - 13 19; look a granted - 14 15; look a refused - 16 17`},
		{"an older token as successor", window, false, `approve - granted c; redeem c granted r1; refresh r1 granted r2; refresh r2 granted r1`},
	} {
		if wrong := Judge(parse(t, test.window, test.ops)); (len(wrong) == 0) != test.right {
			t.Errorf("%s: judged right: %t, want %t %v", test.name, len(wrong) == 0, test.right, wrong)
		}
	}
}

// parse reads the operations of a row of TestJudge.
func parse(t *testing.T, window time.Duration, text string) (ops []Op) {
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
		o := Op{Window: window, Kind: Kind(f[0]), Input: strings.Trim(f[1], "-"), Outcome: Outcome(f[2]), Output: strings.Trim(f[3], "-"),
			Call: began.Add(time.Duration(from) * time.Second), End: began.Add(time.Duration(to) * time.Second)}
		ops = append(ops, o)
	}
	return ops
}

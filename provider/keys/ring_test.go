package keys

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage"
)

func testSealer() *Sealer { return &Sealer{Primary: testKEK(1)} }

// firstRows are the rows that a new database gets at testNow.
type firstRows struct {
	keys    []storage.SigningKey // for each algorithm the active one and the next
	secrets []storage.SealedSecret
}

// newRows makes them once: an RSA key takes its time.
var newRows = sync.OnceValues(func() (firstRows, error) {
	k := Keeper{Sealer: testSealer(), Schedule: DefaultSchedule(), Algorithms: Algorithms()}
	have := inventory{sealer: k.Sealer}
	want, err := k.decide(have, testNow, func(*draft) error { return nil })
	if err != nil {
		return firstRows{}, err
	}
	made, err := k.make(context.Background(), have, want, testNow)
	if err != nil {
		return firstRows{}, err
	}
	for i := range want.keys {
		err = errors.Join(err, made.complete(&want.keys[i]))
	}
	for i := range want.secrets {
		err = errors.Join(err, made.completeSecret(&want.secrets[i]))
	}
	return firstRows{keys: want.keys, secrets: append(want.secrets, *made.rows, *made.canary)}, err
})

// testRows returns a copy that the test may change.
func testRows(t testing.TB) firstRows {
	rows, err := newRows()
	if err != nil {
		t.Fatal(err)
	}
	secrets := slices.DeleteFunc(slices.Clone(rows.secrets), func(s storage.SealedSecret) bool { return s.Purpose == purposeCanary })
	return firstRows{slices.Clone(rows.keys), secrets}
}

// authenticated computes the MACs anew, as the program does when it changes a row.
func (rows firstRows) authenticated(t testing.TB) firstRows {
	t.Helper()
	i := slices.IndexFunc(rows.secrets, func(s storage.SealedSecret) bool { return s.Purpose == purposeRows })
	if i < 0 {
		return rows
	}
	s := rows.secrets[i]
	secret, err := testSealer().Open(t.Context(), sealedSecretIdentity(s), Sealed{s.Sealed, s.WrappedDEK, s.KEKID})
	if err != nil {
		t.Fatal(err)
	}
	m := rowMACs{secret}
	for i := range rows.keys {
		rows.keys[i].MAC = m.ofKey(rows.keys[i])
	}
	for i := range rows.secrets {
		rows.secrets[i].MAC = m.ofSecret(rows.secrets[i])
	}
	return rows
}

func (rows firstRows) ring(t testing.TB, now time.Time) *Ring {
	t.Helper()
	rows = rows.authenticated(t)
	ring, err := newRing(t.Context(), rows.keys, rows.secrets, testSealer(), now)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func testRing(t testing.TB) *Ring {
	t.Helper()
	return testRows(t).ring(t, testNow)
}

// of returns the rows of one algorithm's token keys: the active one and the next.
func (rows firstRows) of(alg string) (active, next *storage.SigningKey) {
	return rows.in(slot{PurposeToken, alg})
}

func (rows firstRows) in(s slot) (active, next *storage.SigningKey) {
	i := slices.IndexFunc(rows.keys, func(k storage.SigningKey) bool { return slotOf(k) == s })
	return &rows.keys[i], &rows.keys[i+1]
}

func kidsIn(t *testing.T, ring *Ring) []string {
	t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	document, _ := ring.JWKS()
	if err := json.Unmarshal(document, &set); err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

func TestJWKSHoldsExactlyThePublicMembers(t *testing.T) {
	members := map[string][]string{
		"EC":  {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"RSA": {"alg", "e", "kid", "kty", "n", "use"},
		"OKP": {"alg", "crv", "kid", "kty", "use", "x"},
	}
	ktyOf := map[string]string{ES256: "EC", RS256: "RSA", PS256: "RSA", EdDSA: "OKP"}
	document, _ := testRing(t).JWKS()
	var set map[string][]map[string]string
	if err := json.Unmarshal(document, &set); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]int) // by algorithm
	for _, s := range slots(Algorithms()) {
		want[s.alg] += 2
	}
	if len(set) != 1 {
		t.Fatalf("not a JWK Set: %s", document)
	}
	count := map[string]int{}
	seen := map[string]bool{}
	for _, k := range set["keys"] {
		count[k["alg"]]++
		if k["kty"] != ktyOf[k["alg"]] || k["use"] != "sig" {
			t.Errorf("kty %q, use %q for %s", k["kty"], k["use"], k["alg"])
		}
		if got := slices.Sorted(maps.Keys(k)); !slices.Equal(got, members[k["kty"]]) {
			t.Errorf("%s has the members %v", k["kty"], got)
		}
		if seen[k["kid"]] {
			t.Error("one key is used with two algorithms")
		}
		seen[k["kid"]] = true
		// RFC 7638 §3: the required members in lexicographic order.
		required := map[string]string{
			"EC":  `{"crv":"` + k["crv"] + `","kty":"EC","x":"` + k["x"] + `","y":"` + k["y"] + `"}`,
			"RSA": `{"e":"` + k["e"] + `","kty":"RSA","n":"` + k["n"] + `"}`,
			"OKP": `{"crv":"` + k["crv"] + `","kty":"OKP","x":"` + k["x"] + `"}`,
		}[k["kty"]]
		if sum := sha256.Sum256([]byte(required)); k["kid"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
			t.Errorf("kid %s is not the thumbprint of %s", k["kid"], required)
		}
	}
	if !maps.Equal(count, want) || want[ES256] != 4 { // those of the feed too
		t.Errorf("keys by algorithm: %v, want %v", count, want)
	}
}

func TestETagFollowsTheDocument(t *testing.T) {
	rows := testRows(t)
	_, a := rows.ring(t, testNow).JWKS()
	_, b := rows.ring(t, testNow.Add(time.Hour)).JWKS()
	if a != b || !strings.HasPrefix(a, `"`) || !strings.HasSuffix(a, `"`) {
		t.Errorf("same document, ETags %s and %s", a, b)
	}
	rows.keys[0].CompromisedAt = testNow
	if _, c := rows.ring(t, testNow).JWKS(); c == a {
		t.Error("another document has the same ETag")
	}
}

func TestKeyLifeByTime(t *testing.T) {
	s := DefaultSchedule()
	switchAt := testNow.Add(s.Sign)
	for _, tt := range []struct {
		name             string
		at               time.Time
		signer           string // "first", "second" or nobody
		published        []string
		verifies         []string
		compromiseFirst  bool
		compromiseSecond bool
	}{
		{name: "a moment before they exist", at: testNow.Add(-s.Allowance - 1)},
		{name: "on a clock that is behind", at: testNow.Add(-s.Allowance), signer: "first", published: []string{"first", "second"}},
		{name: "at once", at: testNow, signer: "first", published: []string{"first", "second"}},
		{name: "last moment of the first", at: switchAt.Add(-1), signer: "first", published: []string{"first", "second"}},
		{name: "first moment of the second", at: switchAt, signer: "second", published: []string{"first", "second"}},
		{name: "last moment of retirement", at: switchAt.Add(s.Retire - 1), signer: "second", published: []string{"first", "second"}},
		{name: "first is removed", at: switchAt.Add(s.Retire), signer: "second", published: []string{"second"}},
		{name: "nobody rotated", at: switchAt.Add(s.Sign), published: []string{"second"}},
		{name: "all is over", at: switchAt.Add(s.Sign + s.Retire)},
		{name: "first compromised", at: testNow, published: []string{"second"}, compromiseFirst: true},
		{name: "first compromised, second's turn", at: switchAt, signer: "second", published: []string{"second"}, compromiseFirst: true},
		{name: "second compromised", at: switchAt, published: []string{"first"}, compromiseSecond: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows := testRows(t)
			first, second := rows.of(ES256)
			if tt.compromiseFirst {
				first.CompromisedAt = testNow
			}
			if tt.compromiseSecond {
				second.CompromisedAt = testNow
			}
			kids := map[string]string{"first": first.KID, "second": second.KID}
			rows.keys = []storage.SigningKey{*first, *second}
			for i := range rows.secrets {
				rows.secrets[i].UseFrom = testNow.AddDate(-1, 0, 0)
			}
			ring := rows.ring(t, tt.at)

			token, err := ring.Sign(ES256, typAccess, testClaims, tt.at)
			if tt.signer == "" {
				if !errors.Is(err, ErrNoKey) {
					t.Errorf("somebody signs: %v", err)
				}
			} else if _, kid, verr := ring.Verify(token, typAccess); err != nil || verr != nil || kid != kids[tt.signer] {
				t.Errorf("%s does not sign: %v, %v", tt.signer, err, verr)
			}
			var want []string
			for _, name := range tt.published {
				want = append(want, kids[name])
			}
			if got := kidsIn(t, ring); !slices.Equal(got, want) {
				t.Errorf("published %v, want %v", got, want)
			}
			for _, kid := range kids {
				if _, alg, ok := ring.PublicKey(kid); ok != slices.Contains(want, kid) || ok && alg != ES256 {
					t.Errorf("PublicKey(%s) is %v, %q", kid, ok, alg)
				}
			}
		})
	}
}

func TestRingGoesByTheClockWhenItIsNotLoadedAgain(t *testing.T) {
	rows := testRows(t)
	first, second := rows.of(ES256)
	ring := rows.ring(t, testNow)
	for _, tt := range []struct {
		at  time.Time
		kid string
	}{
		{testNow, first.KID},
		{first.SignUntil.Add(-1), first.KID},
		{first.SignUntil, second.KID},
		{second.SignUntil, ""},
	} {
		token, err := ring.Sign(ES256, typAccess, testClaims, tt.at)
		if tt.kid == "" {
			if !errors.Is(err, ErrNoKey) {
				t.Errorf("signs after the last key's time: %v", err)
			}
			continue
		}
		if _, kid, verr := ring.Verify(token, typAccess); err != nil || verr != nil || kid != tt.kid {
			t.Errorf("at %v: %s signs (%v, %v), want %s", tt.at, kid, err, verr, tt.kid)
		}
	}
}

func TestLatestOfTwoActiveKeysSigns(t *testing.T) {
	rows := testRows(t)
	first, second := rows.of(ES256)
	second.SignFrom = testNow.Add(-time.Second) // brought forward
	for range 2 {
		slices.Reverse(rows.keys) // whatever the order of the rows
		token, err := rows.ring(t, testNow).Sign(ES256, typAccess, testClaims, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if _, kid, err := rows.ring(t, testNow).Verify(token, typAccess); err != nil || kid == first.KID {
			t.Errorf("%s signed, %v", kid, err)
		}
	}
}

func TestRetiredKeyVerifiesWithItsPrivateHalfDestroyed(t *testing.T) {
	rows := testRows(t)
	first, second := rows.of(ES256)
	token, err := rows.ring(t, testNow).Sign(ES256, typAccess, testClaims, testNow)
	if err != nil {
		t.Fatal(err)
	}
	first.SealedPrivate, first.WrappedDEK, first.KEKID = nil, nil, ""
	ring := rows.ring(t, second.SignFrom)
	if _, _, err := ring.Verify(token, typAccess); err != nil {
		t.Error(err)
	}
	if _, _, err := rows.ring(t, first.RemoveAt).Verify(token, typAccess); !errors.Is(err, ErrInvalidToken) {
		t.Errorf("a removed key verifies: %v", err)
	}
	for _, hint := range []struct {
		name string
		at   time.Time
		bad  bool // the key is compromised
		good bool
	}{
		{"while published", second.SignFrom, false, true},
		{"removed", first.RemoveAt, false, true},
		{"removed a year ago", first.RemoveAt.Add(hintMemory), false, false},
		{"compromised", first.RemoveAt, true, false},
	} {
		if hint.bad {
			first.CompromisedAt = first.RemoveAt
		}
		if _, err := rows.ring(t, hint.at).VerifyHint(token, typAccess); (err == nil) != hint.good {
			t.Errorf("as a hint, %s: %v", hint.name, err)
		}
	}
}

// What the feed's keys sign never passes for a token, and no token key signs
// for the feed, though all are in one JWK Set.
func TestFeedKeysAndTokenKeysNeverStandInForEachOther(t *testing.T) {
	rows := testRows(t)
	feed, next := rows.in(slot{PurposeFeed, ES256})
	ring := rows.ring(t, testNow)
	for _, kid := range []string{feed.KID, next.KID} {
		if !slices.Contains(kidsIn(t, ring), kid) {
			t.Error("not published")
		}
		if _, _, ok := ring.PublicKey(kid); ok {
			t.Error("tokens signed by it would be accepted")
		}
	}
	const typBatch = "revocation-batch+jwt"
	message, err := ring.SignFeed(typBatch, testClaims, testNow)
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(message, ".")
	if got := decoded(header); got != `{"alg":"ES256","typ":"`+typBatch+`","kid":"`+feed.KID+`"}` {
		t.Errorf("header %s", got)
	}
	jws, err := jose.ParseSignedCompact(message, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	document, _ := ring.JWKS()
	if err := json.Unmarshal(document, &set); err != nil {
		t.Fatal(err)
	}
	if claims, err := jws.Verify(set.Key(feed.KID)[0]); err != nil || !bytes.Equal(claims, testClaims) {
		t.Errorf("the message does not verify: %v", err)
	}
	// Whoever held the feed's key could sign anything: it is not accepted.
	stolen, err := ring.signWith(slot{PurposeFeed, ES256}, typAccess, testClaims, testNow)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{message, stolen} {
		for _, typ := range []string{typAccess, typBatch, "JWT"} {
			if _, _, err := ring.Verify(token, typ); !errors.Is(err, ErrInvalidToken) {
				t.Errorf("accepted as %s: %v", typ, err)
			}
			if _, err := ring.VerifyHint(token, typ); !errors.Is(err, ErrInvalidToken) {
				t.Errorf("accepted as a hint, as %s: %v", typ, err)
			}
		}
	}
	for _, typ := range []string{typAccess, "JWT", "", "revocation-batch", "statuslist+jwt"} {
		if _, err := ring.SignFeed(typ, testClaims, testNow); err == nil {
			t.Errorf("the feed's key signs %q", typ)
		}
	}
	if _, err := ring.Sign(ES256, typBatch, testClaims, testNow); err == nil {
		t.Error("a token key signs for the feed")
	}

	next.SignFrom = testNow // its turn comes as with any other
	message, err = rows.ring(t, testNow).SignFeed(typBatch, testClaims, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if header, _, _ := strings.Cut(message, "."); !strings.HasSuffix(decoded(header), next.KID+`"}`) {
		t.Errorf("the next key does not sign: %s", decoded(header))
	}
	rows.keys = slices.DeleteFunc(rows.keys, func(k storage.SigningKey) bool { return k.Purpose == PurposeFeed })
	if _, err := rows.ring(t, testNow).SignFeed(typBatch, testClaims, testNow); !errors.Is(err, ErrNoKey) {
		t.Errorf("without a key of its own: %v", err)
	}
}

func decoded(text string) string {
	b, _ := base64.RawURLEncoding.DecodeString(text)
	return string(b)
}

func TestNextChangeIsWhenTheRowsMeanSomethingElse(t *testing.T) {
	rows := testRows(t)
	first, second := rows.of(ES256)
	rows.keys = []storage.SigningKey{*first, *second}
	at := testNow
	for _, want := range []time.Time{first.SignUntil, first.RemoveAt, second.SignUntil, second.RemoveAt} {
		ring := rows.ring(t, at)
		if !ring.NextChange().Equal(want) {
			t.Fatalf("at %v the next change is %v, want %v", at, ring.NextChange(), want)
		}
		document, _ := ring.JWKS()
		until, _ := rows.ring(t, want.Add(-1)).JWKS()
		if !bytes.Equal(document, until) {
			t.Errorf("the JWK Set changed between %v and %v", at, want)
		}
		at = want
	}
	if next := rows.ring(t, at).NextChange(); next.Before(at.AddDate(1000, 0, 0)) {
		t.Errorf("nothing is planned, yet the next change is %v", next)
	}
}

// The rules the design calls invariants, for any times whatever in the rows.
func TestNoKeySignsOutsideItsPublication(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	moment := func() time.Time {
		if rng.IntN(8) == 0 {
			return time.Time{}
		}
		return testNow.Add(time.Duration(rng.IntN(20)) * time.Hour)
	}
	signed := 0
	for range 20_000 {
		k := storage.SigningKey{PublishAt: moment(), SignFrom: moment(), SignUntil: moment(), RemoveAt: moment()}
		if rng.IntN(4) == 0 {
			k.CompromisedAt = moment()
		}
		for h := range 21 {
			at := testNow.Add(time.Duration(h)*time.Hour - time.Duration(rng.IntN(2)))
			if published(k, at) && (!k.CompromisedAt.IsZero() || !k.RemoveAt.IsZero() && !at.Before(k.RemoveAt)) {
				t.Fatalf("published compromised or removed at %v: %+v", at, k)
			}
			if !signs(k, at) {
				continue
			}
			signed++
			switch {
			case !published(k, at):
				t.Fatalf("signs unpublished at %v: %+v", at, k)
			case !k.CompromisedAt.IsZero():
				t.Fatalf("signs compromised: %+v", k)
			case at.Before(k.PublishAt), at.Before(k.SignFrom), k.PublishAt.IsZero(), k.SignFrom.IsZero():
				t.Fatalf("signs too early at %v: %+v", at, k)
			case !k.SignUntil.IsZero() && !at.Before(k.SignUntil), !k.RemoveAt.IsZero() && !at.Before(k.RemoveAt):
				t.Fatalf("signs too late at %v: %+v", at, k)
			}
		}
	}
	if signed == 0 {
		t.Error("no key ever signed: the test tests nothing")
	}
}

func TestLoadRefusesRowsThatDoNotHoldTogether(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(rows *firstRows)
		want   error // nil: any
	}{
		{"public key of another row", func(rows *firstRows) {
			a, b := rows.of(ES256)
			a.PublicJWK = b.PublicJWK
		}, nil},
		{"private key of another row", func(rows *firstRows) {
			a, b := rows.of(ES256)
			a.SealedPrivate, a.WrappedDEK = b.SealedPrivate, b.WrappedDEK
		}, nil},
		{"relabelled RS256 as PS256", func(rows *firstRows) {
			a, _ := rows.of(RS256)
			a.Alg = PS256
		}, nil},
		{"relabelled ES256 as RS256 with no private half to tell", func(rows *firstRows) {
			a, _ := rows.of(ES256)
			a.Alg, a.SealedPrivate = RS256, nil
		}, nil},
		{"private key in the public column", func(rows *firstRows) {
			a, _ := rows.of(EdDSA)
			a.KID, a.SealedPrivate = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", nil // RFC 8037 appendix A
			a.PublicJWK = `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
		}, nil},
		{"public key is garbage", func(rows *firstRows) { rows.keys[0].PublicJWK = "{}" }, nil},
		{"key-encryption key is another", func(rows *firstRows) { rows.keys[0].KEKID = "someone-else" }, ErrWrongKEK},
		{"MAC key's key-encryption key is another", func(rows *firstRows) { rows.secrets[0].KEKID = "someone-else" }, ErrWrongKEK},
		{"MAC key damaged", func(rows *firstRows) { rows.secrets[0].Sealed = rows.secrets[0].Sealed[1:] }, nil},
		{"no MAC key", func(rows *firstRows) { rows.secrets = nil }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows := testRows(t)
			tt.change(&rows)
			rows = rows.authenticated(t)
			ring, err := newRing(t.Context(), rows.keys, rows.secrets, testSealer(), testNow)
			if err == nil || ring != nil {
				t.Fatal("loaded")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestMAC(t *testing.T) {
	rows := testRows(t)
	ring := rows.ring(t, testNow)
	id, mac := ring.MAC(PurposeClientSecret, []byte("data"))
	for _, tt := range []struct {
		name, id, data string
		mac            []byte
		ok             bool
	}{
		{"as made", id, "data", mac[:], true},
		{"other data", id, "date", mac[:], false},
		{"other key", "nobody", "data", mac[:], false},
		{"truncated", id, "data", mac[:16], false},
		{"empty", id, "data", nil, false},
	} {
		if got := ring.VerifyMAC(PurposeClientSecret, tt.id, []byte(tt.data), tt.mac); got != tt.ok {
			t.Errorf("%s: %v", tt.name, got)
		}
	}

	// A successor takes over; what the old one made stays good until it is removed.
	successor := storage.SealedSecret{Purpose: PurposeClientSecret, UseFrom: testNow.Add(2 * time.Hour), CreatedAt: testNow}
	if err := newSealedSecret(t.Context(), &successor, testSealer()); err != nil {
		t.Fatal(err)
	}
	old := &rows.secrets[0]
	old.UseUntil, old.RemoveAt = successor.UseFrom, successor.UseFrom.Add(time.Hour)
	rows.secrets = append(rows.secrets, successor)
	for _, tt := range []struct {
		at      time.Time
		current string
		oldGood bool
	}{
		{successor.UseFrom.Add(-1), old.ID, true},
		{successor.UseFrom, successor.ID, true},
		{old.RemoveAt.Add(-1), successor.ID, true},
		{old.RemoveAt, successor.ID, false},
	} {
		ring := rows.ring(t, tt.at)
		if current, _ := ring.MAC(PurposeClientSecret, nil); current != tt.current {
			t.Errorf("at %v %s makes MACs, want %s", tt.at, current, tt.current)
		}
		if got := ring.VerifyMAC(PurposeClientSecret, old.ID, []byte("data"), mac[:]); got != tt.oldGood {
			t.Errorf("at %v the old key verifies: %v", tt.at, got)
		}
	}
}

func TestNothingPrintsKeyMaterial(t *testing.T) {
	ring := testRing(t)
	sealer := &Sealer{Primary: testKEK(1), Previous: testKEK(2)}

	secrets := [][]byte{bytes.Repeat([]byte{1}, 8), bytes.Repeat([]byte{2}, 8)}
	for _, secret := range ring.secrets[PurposeClientSecret].byID {
		secrets = append(secrets, secret[:8])
	}
	var numbers []string
	for _, list := range ring.signers {
		for _, k := range list {
			switch p := k.private.(type) {
			case *ecdsa.PrivateKey:
				b, err := p.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				secrets = append(secrets, b[:8])
			case *rsa.PrivateKey:
				secrets = append(secrets, p.D.Bytes()[:8], p.Primes[0].Bytes()[:8])
				numbers = append(numbers, p.D.String()[:16], p.Primes[0].String()[:16])
			case ed25519.PrivateKey:
				secrets = append(secrets, p[:8])
			}
		}
	}
	for _, s := range secrets {
		numbers = append(numbers,
			hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s)), string(s),
			base64.RawStdEncoding.EncodeToString(s)[:10], base64.RawURLEncoding.EncodeToString(s)[:10],
			strings.Trim(fmt.Sprintf("%v", s), "[]"), strings.Trim(fmt.Sprintf("%#v", s), "[]byte{}"))
	}

	type holder struct {
		Ring   *Ring
		Sealer *Sealer
		Inner  Sealer
		KEK    KEK
		ring   *Ring
		sealer *Sealer
		inner  Sealer
		kek    KEK
	}
	h := holder{ring, sealer, *sealer, sealer.Primary, ring, sealer, *sealer, sealer.Primary}
	values := []any{ring, *ring, sealer, *sealer, sealer.Primary, h, &h}
	var out strings.Builder
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	for _, s := range numbers {
		if strings.Contains(out.String(), s) {
			t.Errorf("key material %.12q is printed", s)
		}
	}
	for _, want := range []string{`"v":"Ring(8 published keys)"`, `"v":"` + sealer.String(), `"v":"KEK(` + sealer.Primary.ID()} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not printed", want)
		}
	}
}

func TestSealValue(t *testing.T) {
	ring := testRing(t)
	sealed, err := ring.SealValue(PurposeFlow, []byte("browser"), []byte("request"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ring.OpenValue(PurposeFlow, []byte("browser"), sealed); err != nil || string(got) != "request" {
		t.Fatalf("OpenValue = %q, %v", got, err)
	}
	if _, err := ring.OpenValue(PurposeFlow, []byte("another browser"), sealed); !errors.Is(err, ErrNotSealed) {
		t.Errorf("in another context: %v", err)
	}
	if _, err := ring.OpenValue(PurposeGrant, []byte("browser"), sealed); !errors.Is(err, ErrNotSealed) {
		t.Errorf("for another purpose: %v", err)
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, err := ring.OpenValue(PurposeFlow, []byte("browser"), changed); !errors.Is(err, ErrNotSealed) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := ring.OpenValue(PurposeFlow, []byte("browser"), sealed[:i]); !errors.Is(err, ErrNotSealed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

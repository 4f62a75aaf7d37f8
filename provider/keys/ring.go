package keys

import (
	"cmp"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage"
)

// What a signing key is for, in its row. A key of one purpose signs nothing of
// the other, and what it signed is never taken for it.
const (
	PurposeToken = "token"
	PurposeFeed  = "feed" // the messages of the revocation feed
)

// What the symmetric keys are for. A key of one purpose is of no use in another.
const (
	PurposeClientSecret = "client-secret" // MAC: hashes of client secrets
	PurposeGrant        = "grant"         // MAC: the outer half of codes and refresh tokens
	PurposeDevice       = "device"        // MAC: cookies of browsers that signed in before
	PurposeFlow         = "flow"          // AEAD: requests that travel through the browser
	PurposePairwise     = "pairwise"      // MAC: what clients with pairwise subjects call people; never succeeded
)

// secretPurposes lists every purpose that has symmetric keys.
func secretPurposes() []string {
	return []string{PurposeClientSecret, PurposeGrant, PurposeDevice, PurposeFlow, PurposePairwise}
}

// hintMemory is how long a removed key still tells that an ID token was ours.
const hintMemory = 365 * 24 * time.Hour

// Ring is the key material as it stood when it was loaded. It is immutable and
// safe for concurrent use. Which key signs is decided afresh by each Sign from
// the times in the rows; the JWK Set, the keys Verify accepts and the current
// MAC keys are those of the time of loading, good until NextChange.
type Ring struct {
	signers   map[slot][]*key // latest SignFrom first
	published map[string]*key // for tokens, by kid
	hints     map[string]*key // for tokens, by kid: published, or removed within hintMemory
	secrets   map[string]*secretKeys
	jwks      []byte
	etag      string
	next      time.Time
	altered   error
}

// slot is a place that one signing key after the other takes.
type slot struct{ purpose, alg string }

func (s slot) String() string { return s.alg + " " + s.purpose }

func slotOf(k storage.SigningKey) slot { return slot{k.Purpose, k.Alg} }

// slots returns the places that need keys so that tokens can be signed with
// each of the algorithms, and the revocation feed: none without algorithms.
func slots(algs []string) []slot {
	var all []slot
	for _, alg := range algs {
		all = append(all, slot{PurposeToken, alg})
	}
	if len(algs) > 0 {
		all = append(all, slot{PurposeFeed, ES256})
	}
	return all
}

// key is a signing key, its row's sealed half put aside.
type key struct {
	row     storage.SigningKey
	public  crypto.PublicKey
	private crypto.Signer // nil for a key that has signed for the last time
}

// secretKeys are the symmetric keys of one purpose.
type secretKeys struct {
	current string
	byID    map[string][]byte
}

// Load reads the keys and opens those that are still of use at now. It returns
// ErrWrongKEK when the sealer has not the key-encryption key they need, and
// the store's error when the database fails.
func Load(ctx context.Context, store storage.Reader, sealer *Sealer, now time.Time) (*Ring, error) {
	rows, err := store.SigningKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	var secrets []storage.SealedSecret
	for _, purpose := range append(secretPurposes(), purposeRows) {
		s, err := store.SealedSecrets(ctx, purpose)
		if err != nil {
			return nil, fmt.Errorf("sealed secrets: %w", err)
		}
		secrets = append(secrets, s...)
	}
	return newRing(ctx, rows, secrets, sealer, now)
}

func newRing(ctx context.Context, rows []storage.SigningKey, secrets []storage.SealedSecret, sealer *Sealer, now time.Time) (*Ring, error) {
	r := &Ring{
		signers:   make(map[slot][]*key),
		published: make(map[string]*key),
		hints:     make(map[string]*key),
		secrets:   make(map[string]*secretKeys),
		next:      time.UnixMilli(math.MaxInt64),
	}
	i := slices.IndexFunc(secrets, func(s storage.SealedSecret) bool { return s.Purpose == purposeRows })
	if i < 0 {
		return nil, errors.New("the database has nothing that authenticates keys: it was never prepared")
	}
	macs, err := openRowMACs(ctx, secrets[i], sealer)
	if err != nil {
		return nil, err
	}
	var altered []error
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, row := range rows {
		if err := macs.checkKey(row); err != nil {
			altered = append(altered, err)
			continue
		}
		if gone(row, now) {
			if row.Purpose != PurposeToken || state(row, now) == StateCompromised || ended(row.RemoveAt.Add(hintMemory), now) {
				continue
			}
			k, err := openKey(ctx, row, sealer, now)
			if err != nil {
				return nil, fmt.Errorf("signing key %s: %w", row.KID, err)
			}
			r.hints[row.KID] = k
			continue
		}
		r.changesAt(now, row.PublishAt, row.SignFrom, row.SignUntil, row.RemoveAt)
		k, err := openKey(ctx, row, sealer, now)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", row.KID, err)
		}
		if published(row, now) {
			set.Keys = append(set.Keys, publicJWK(k.public, row.KID, row.Alg))
		}
		if published(row, now) && row.Purpose == PurposeToken {
			r.published[row.KID], r.hints[row.KID] = k, k
		}
		if k.private != nil {
			r.signers[slotOf(row)] = append(r.signers[slotOf(row)], k)
		}
	}
	for _, list := range r.signers {
		slices.SortFunc(list, func(a, b *key) int {
			return cmp.Or(b.row.SignFrom.Compare(a.row.SignFrom), cmp.Compare(a.row.KID, b.row.KID))
		})
	}
	for _, s := range secrets {
		if s.Purpose == purposeRows {
			continue
		}
		if err := macs.checkSecret(s); err != nil {
			altered = append(altered, err)
			continue
		}
		if err := r.addSecretKey(ctx, s, sealer, now); err != nil {
			return nil, fmt.Errorf("sealed secret %s: %w", s.ID, err)
		}
	}
	for _, purpose := range secretPurposes() {
		if m := r.secrets[purpose]; m == nil || m.current == "" {
			return nil, errors.Join(append(altered, fmt.Errorf("the database has no %s key: it was never prepared", purpose))...)
		}
	}
	r.altered = errors.Join(altered...)
	if r.jwks, err = json.Marshal(set); err != nil {
		return nil, fmt.Errorf("JWK Set: %w", err)
	}
	digest := sha256.Sum256(r.jwks)
	r.etag = `"` + base64.RawURLEncoding.EncodeToString(digest[:16]) + `"`
	return r, nil
}

// openKey checks a row and opens its private half if it may yet sign.
func openKey(ctx context.Context, row storage.SigningKey, sealer *Sealer, now time.Time) (*key, error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal([]byte(row.PublicJWK), &jwk); err != nil {
		return nil, errors.New("its public key cannot be read")
	}
	if !suits(row.Alg, jwk.Key) { // nor a private key
		return nil, fmt.Errorf("its public key is not one for %s", row.Alg)
	}
	if kid, err := thumbprint(jwk.Key); err != nil || kid != row.KID {
		return nil, errors.New("its kid is not its public key's thumbprint")
	}
	k := &key{row: row, public: jwk.Key}
	k.row.SealedPrivate, k.row.WrappedDEK = nil, nil
	if len(row.SealedPrivate) == 0 || ended(row.SignUntil, now) {
		return k, nil
	}
	der, err := sealer.Open(ctx, signingKeyIdentity(row), Sealed{row.SealedPrivate, row.WrappedDEK, row.KEKID})
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("its private key cannot be read")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("its private key cannot sign")
	}
	if kid, err := thumbprint(signer.Public()); err != nil || kid != row.KID {
		return nil, errors.New("its private key does not belong to its public key")
	}
	k.private = signer
	return k, nil
}

func (r *Ring) addSecretKey(ctx context.Context, s storage.SealedSecret, sealer *Sealer, now time.Time) error {
	if ended(s.RemoveAt, now) {
		return nil
	}
	r.changesAt(now, s.UseFrom, s.UseUntil, s.RemoveAt)
	secret, err := sealer.Open(ctx, sealedSecretIdentity(s), Sealed{s.Sealed, s.WrappedDEK, s.KEKID})
	if err != nil {
		return err
	}
	m := r.secrets[s.Purpose]
	if m == nil {
		m = &secretKeys{byID: make(map[string][]byte)}
		r.secrets[s.Purpose] = m
	}
	m.byID[s.ID] = secret
	if inUse(s, now) {
		m.current = s.ID // rows come by UseFrom: the latest wins
	}
	return nil
}

// changesAt notes the times after now at which the ring will be out of date.
func (r *Ring) changesAt(now time.Time, times ...time.Time) {
	for _, t := range times {
		if t.After(now) && t.Before(r.next) {
			r.next = t
		}
	}
}

// NextChange returns the time from which the rows mean something else than
// this ring: load it again then, or when the registry's version moves. It is
// far in the future when nothing is planned. A ring that outlives it by the
// moments of a poll does no harm: keys are published hours before they sign
// and removed hours after, and Sign goes by the clock, not by the ring.
func (r *Ring) NextChange() time.Time { return r.next }

// Altered returns ErrAltered with every row that was left out of the ring
// because it is not as it was written, or nil.
func (r *Ring) Altered() error { return r.altered }

// CanSign returns ErrNoKey if at now no key may sign tokens with one of the
// algorithms, or the revocation feed.
func (r *Ring) CanSign(algs []string, now time.Time) error {
	for _, s := range slots(algs) {
		if r.signing(s, now) == nil {
			return fmt.Errorf("%w for %s", ErrNoKey, s)
		}
	}
	return nil
}

// signing returns the key whose turn it is, or nil.
func (r *Ring) signing(s slot, now time.Time) *key {
	for _, k := range r.signers[s] {
		if signs(k.row, now) {
			return k
		}
	}
	return nil
}

// Turn is whose turn it is to sign for a purpose with an algorithm.
type Turn struct {
	Purpose, Alg string
	Since, Until time.Time // of the key that signs; zero when none may
	Successors   int       // keys that wait for their turn
}

// Turns returns the turns at now: for tokens, one for each of the algorithms,
// however often that is named, and one for the revocation feed.
func (r *Ring) Turns(algs []string, now time.Time) []Turn {
	var all []Turn
	for _, s := range slots(algs) {
		t := Turn{Purpose: s.purpose, Alg: s.alg}
		if slices.ContainsFunc(all, func(other Turn) bool { return other.Purpose == t.Purpose && other.Alg == t.Alg }) {
			continue
		}
		for _, k := range r.signers[s] {
			if state(k.row, now) == StateNext {
				t.Successors++
			}
		}
		if k := r.signing(s, now); k != nil {
			t.Since, t.Until = k.row.SignFrom, k.row.SignUntil
		}
		all = append(all, t)
	}
	return all
}

// PublicKey returns the public key with this kid and the one algorithm it is
// used with, if it signs or signed tokens and is published.
func (r *Ring) PublicKey(kid string) (public crypto.PublicKey, alg string, ok bool) {
	k := r.published[kid]
	if k == nil {
		return nil, "", false
	}
	return k.public, k.row.Alg, true
}

// JWKS returns the JWK Set document (RFC 7517 §5) and its strong ETag. The
// bytes are shared: do not change them.
func (r *Ring) JWKS() (document []byte, etag string) { return r.jwks, r.etag }

// CurrentID returns the id of the key that makes new values of the purpose.
func (r *Ring) CurrentID(purpose string) string { return r.secrets[purpose].current }

// MAC returns the HMAC-SHA256 of data under the current key of the purpose,
// which is one of this package's constants, and that key's id.
func (r *Ring) MAC(purpose string, data []byte) (keyID string, mac [sha256.Size]byte) {
	m := r.secrets[purpose]
	return m.current, hmacSHA256(m.byID[m.current], data)
}

// VerifyMAC reports, in constant time, whether mac is the MAC of data under
// the key of the purpose with this id.
func (r *Ring) VerifyMAC(purpose, keyID string, data, mac []byte) bool {
	secret, ok := r.secrets[purpose].byID[keyID]
	if !ok {
		return false
	}
	want := hmacSHA256(secret, data)
	return hmac.Equal(want[:], mac)
}

// MACWith returns the MAC of data under the key of the purpose with this id,
// if the ring still has it: what was made once can be made again.
func (r *Ring) MACWith(purpose, keyID string, data []byte) (mac [sha256.Size]byte, ok bool) {
	secret, ok := r.secrets[purpose].byID[keyID]
	if !ok {
		return mac, false
	}
	return hmacSHA256(secret, data), true
}

// ErrNotSealed says that a value was not sealed by these keys for this
// purpose and context.
var ErrNotSealed = errors.New("not sealed here")

// SealValue encrypts plaintext under the current key of the purpose and binds
// it to context, without which it does not open. AES-256-GCM with random
// nonces is good for 2^32 values per key (NIST SP 800-38D §8.3).
func (r *Ring) SealValue(purpose string, context, plaintext []byte) ([]byte, error) {
	keys := r.secrets[purpose]
	aead, err := newGCM(keys.byID[keys.current])
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", purpose, err)
	}
	sealed := append([]byte{byte(len(keys.current))}, keys.current...)
	return aead.Seal(sealed, nil, plaintext, context), nil
}

// OpenValue returns what SealValue sealed for this purpose and context, or
// ErrNotSealed.
func (r *Ring) OpenValue(purpose string, context, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || len(sealed) <= int(sealed[0]) {
		return nil, ErrNotSealed
	}
	rest := sealed[1+sealed[0]:]
	secret, ok := r.secrets[purpose].byID[string(sealed[1:1+sealed[0]])]
	if !ok {
		return nil, ErrNotSealed
	}
	aead, err := newGCM(secret)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", purpose, err)
	}
	plaintext, err := aead.Open(nil, nil, rest, context)
	if err != nil {
		return nil, ErrNotSealed
	}
	return plaintext, nil
}

func hmacSHA256(secret, data []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, secret)
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

// String tells how many keys are in the ring and nothing of what they are.
// Like the methods below it also serves a copy of the ring.
func (r Ring) String() string { return fmt.Sprintf("Ring(%d published keys)", len(r.published)) }

// GoString is String, for %#v.
func (r Ring) GoString() string { return r.String() }

// LogValue is String, for slog.
func (r Ring) LogValue() slog.Value { return slog.StringValue(r.String()) }

// publicJWK describes a public key as the JWK Set shows it.
func publicJWK(public crypto.PublicKey, kid, alg string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: public, KeyID: kid, Algorithm: alg, Use: "sig"}
}

// thumbprint returns a public key's kid (RFC 7638).
func thumbprint(public crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

func signingKeyIdentity(k storage.SigningKey) string {
	return identity("signing_keys", k.KID, k.Alg, k.Purpose)
}

func sealedSecretIdentity(s storage.SealedSecret) string {
	return identity("sealed_secrets", s.ID, s.Purpose)
}

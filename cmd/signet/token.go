package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/verify"
)

type tokenCmd struct {
	Inspect tokenInspect `cmd:"" help:"Show what is in a token and whether it is good."`
}

func (*tokenCmd) Examples() string { return (*tokenInspect)(nil).Examples() }

type tokenInspect struct {
	// Token is there to be refused without being repeated.
	Token  []string `arg:"" optional:"" name:"token" help:"Refused: others on the machine can see arguments. Give it on standard input."`
	Issuer string   `placeholder:"URL" help:"Verify with the keys this issuer publishes."`
}

// Help says what the answer rests on.
func (*tokenInspect) Help() string {
	return `Reads a JWT from standard input, also as it stands in an Authorization header. The signature is verified with the keys that --issuer publishes, else with those in the database; it is "unverified" when neither is at hand. Whether the token is revoked is looked up in the database of its issuer where it is at hand, else in the revocation feed that --issuer publishes; an expired token is in neither.

Exit status 1 when the signature is invalid or the token is expired or revoked; what is in it is shown all the same.`
}

func (*tokenInspect) Examples() string {
	return `signet token inspect < token.jwt`
}

// What is said of a signature.
const (
	signatureValid      = "valid"
	signatureInvalid    = "invalid"
	signatureUnverified = "unverified"
)

type inspection struct {
	Header      json.RawMessage `json:"header"`
	Claims      json.RawMessage `json:"claims"`
	Size        int             `json:"size"` // bytes
	SizeByClaim map[string]int  `json:"size_by_claim"`
	Signature   string          `json:"signature"`
	Reason      string          `json:"signature_reason,omitempty"`
	Expired     bool            `json:"expired"`
	Revoked     *bool           `json:"revoked"` // null: not known
}

// verdict returns an error that says everything the token is refused for.
func (v inspection) verdict() error {
	var reasons []string
	if v.Signature == signatureInvalid {
		reasons = append(reasons, "its signature is invalid")
	}
	if v.Expired {
		reasons = append(reasons, "it has expired")
	}
	if v.Revoked != nil && *v.Revoked {
		reasons = append(reasons, "it is revoked")
	}
	if reasons == nil {
		return nil
	}
	return &failure{status: exitFailed, code: "token_refused", message: "the token is not good: " + strings.Join(reasons, ", ")}
}

// signatureAlgorithms are those our tokens are signed with.
func signatureAlgorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA}
}

func (c *tokenInspect) Run(ctx context.Context, a *app) error {
	if len(c.Token) > 0 {
		return usage("a token is no argument: others on the machine can see it there", "give it on standard input: `signet token inspect < token.jwt`, or paste it after `signet token inspect`")
	}
	token, err := unlessInterrupted(ctx, a.readToken)
	if err != nil {
		return err
	}
	v, err := takeApart(token)
	if err != nil {
		return err
	}
	i, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	if i != nil {
		defer i.Close()
	}
	switch {
	case c.Issuer != "":
		set, err := fetchKeys(ctx, c.Issuer)
		if err != nil {
			return err
		}
		v.Signature, v.Reason = verifySignature(token, set)
	case i != nil:
		set, err := databaseKeys(ctx, i.Store)
		if err != nil {
			return err
		}
		if len(set.Keys) == 0 { // never served
			v.Signature, v.Reason = signatureUnverified, "this database has no keys yet; give --issuer to verify it"
			break
		}
		v.Signature, v.Reason = verifySignature(token, set)
	default:
		v.Signature, v.Reason = signatureUnverified, "give --issuer to verify it"
	}
	if i != nil && v.Signature == signatureValid {
		if v.Revoked, err = revoked(ctx, i, token, v); err != nil {
			return err
		}
	}
	if c.Issuer != "" && v.Signature == signatureValid && v.Revoked == nil {
		if v.Revoked, err = revokedByFeed(ctx, c.Issuer, token, v); err != nil {
			return err
		}
	}
	now := time.Now()
	if i != nil {
		now = i.Now()
	}
	v.Expired = !v.expiry().IsZero() && !now.Before(v.expiry())
	if err := a.print(v, v.describe); err != nil {
		return err
	}
	return v.verdict()
}

// expiry returns when the token expires, or the zero time if it never does.
func (v inspection) expiry() time.Time {
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(v.Claims, &claims) != nil || claims.Expires <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expires), 0)
}

// readToken reads a token, with or without the words it has before it in a
// header (RFC 6750 §2.1).
func (a *app) readToken() (string, error) {
	const longest = 64 << 10
	b, err := io.ReadAll(io.LimitReader(a.stdin, longest))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	words := strings.Fields(string(b))
	if len(words) > 0 && strings.EqualFold(words[0], "Authorization:") {
		words = words[1:]
	}
	if len(words) == 2 && strings.EqualFold(words[0], "Bearer") {
		words = words[1:]
	}
	return strings.Join(words, " "), nil
}

// takeApart decodes a JWS in compact form (RFC 7515 §3.1).
func takeApart(token string) (inspection, error) {
	const fix = "pipe an access token or ID token into the command"
	if strings.HasPrefix(token, "sgr_") || strings.HasPrefix(token, "sgc_") {
		return inspection{}, usage("a refresh token or code says nothing by itself: it is opaque", fix)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return inspection{}, usage("standard input has no signed JWT (three parts joined by dots)", fix)
	}
	v := inspection{Size: len(token), SizeByClaim: map[string]int{}}
	for i, at := range []*json.RawMessage{&v.Header, &v.Claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		var members map[string]json.RawMessage
		if err != nil || json.Unmarshal(b, &members) != nil {
			return inspection{}, usage("standard input has no signed JWT: its parts are not JSON objects in base64url", fix)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, b); err != nil {
			return inspection{}, fmt.Errorf("token: %w", err)
		}
		*at = compact.Bytes()
		if at == &v.Claims {
			for name, value := range members {
				v.SizeByClaim[name] = len(`"":,`) + len(name) + len(value)
			}
		}
	}
	return v, nil
}

// verifySignature says whether one of the keys made the token's signature.
func verifySignature(token string, set jose.JSONWebKeySet) (state, reason string) {
	jws, err := jose.ParseSignedCompact(token, signatureAlgorithms())
	if err != nil {
		return signatureInvalid, "its algorithm is not one of ES256, RS256, PS256 and EdDSA"
	}
	header := jws.Signatures[0].Header
	candidates := set.Key(header.KeyID)
	if len(candidates) == 0 {
		return signatureInvalid, fmt.Sprintf("there is no key with the kid %q", header.KeyID)
	}
	for _, key := range candidates {
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue // RFC 8725 §3.1: a key is for one algorithm
		}
		if _, err := jws.Verify(key); err == nil {
			return signatureValid, ""
		}
	}
	return signatureInvalid, fmt.Sprintf("it was not made with the key %q, or the token was changed afterwards", header.KeyID)
}

// databaseKeys returns the public half of every key that signs or signed
// tokens, old ones included.
func databaseKeys(ctx context.Context, r storage.Reader) (jose.JSONWebKeySet, error) {
	rows, err := r.SigningKeys(ctx)
	if err != nil {
		return jose.JSONWebKeySet{}, fmt.Errorf("signing keys: %w", err)
	}
	var set jose.JSONWebKeySet
	for _, row := range rows {
		if row.Purpose != keys.PurposeToken {
			continue // what a key of the revocation feed signed is no token
		}
		var key jose.JSONWebKey
		if err := json.Unmarshal([]byte(row.PublicJWK), &key); err != nil {
			return jose.JSONWebKeySet{}, fmt.Errorf("signing key %s: %w", row.KID, err)
		}
		key.KeyID, key.Algorithm = row.KID, row.Alg
		set.Keys = append(set.Keys, key)
	}
	return set, nil
}

// fetchKeys reads the issuer's metadata (OIDC Discovery §4) and its JWK Set.
func fetchKeys(ctx context.Context, issuer string) (jose.JSONWebKeySet, error) {
	if _, err := provider.ParseIssuer(issuer); err != nil {
		return jose.JSONWebKeySet{}, usage("--issuer "+issuerProblem(issuer, err), "")
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := fetchJSON(ctx, issuer+"/.well-known/openid-configuration", &metadata); err != nil {
		return jose.JSONWebKeySet{}, err
	}
	if metadata.Issuer != issuer { // OIDC Discovery §4.3
		return jose.JSONWebKeySet{}, &failure{status: exitFailed, code: "wrong_issuer",
			message: fmt.Sprintf("the metadata is that of %q", metadata.Issuer), fix: "give --issuer exactly as the issuer writes it"}
	}
	var set jose.JSONWebKeySet
	err := fetchJSON(ctx, metadata.JWKSURI, &set)
	return set, err
}

func fetchJSON(ctx context.Context, url string, v any) error {
	const (
		timeout = 10 * time.Second
		longest = 1 << 20
	)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	unreachable := func(err error) error {
		return &failure{status: exitFailed, code: "issuer_unreachable", message: fmt.Sprintf("%s: %v", url, err), fix: "see that the issuer is up and --issuer names it"}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return unreachable(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return unreachable(errors.Unwrap(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return unreachable(fmt.Errorf("status %d", res.StatusCode))
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, longest)).Decode(v); err != nil {
		return unreachable(fmt.Errorf("no JSON: %w", err))
	}
	return nil
}

// revoked looks the token up in the revocation log, as introspection does. It
// returns nil when the keys of this database did not sign the token.
func revoked(ctx context.Context, i *instance, token string, v inspection) (*bool, error) {
	set, err := databaseKeys(ctx, i.Store)
	if err != nil {
		return nil, err
	}
	if state, _ := verifySignature(token, set); state != signatureValid {
		return nil, nil
	}
	var header struct {
		KID string `json:"kid"`
	}
	var claims struct {
		Issuer   string  `json:"iss"`
		Subject  string  `json:"sub"`
		ClientID string  `json:"client_id"`
		ID       string  `json:"jti"`
		GrantID  string  `json:"grant_id"`
		Session  string  `json:"sid"`
		IssuedAt float64 `json:"iat"`
	}
	if json.Unmarshal(v.Header, &header) != nil || json.Unmarshal(v.Claims, &claims) != nil {
		return nil, nil
	}
	var about []storage.RevocationKey
	for _, k := range []struct{ kind, value string }{
		{revocation.KindToken, claims.ID},
		{revocation.KindGrant, claims.GrantID},
		{revocation.KindSession, claims.Session},
		{revocation.KindSubject, claims.Subject},
		{revocation.KindClient, claims.ClientID},
		{revocation.KindKey, header.KID},
		{revocation.KindIssuer, claims.Issuer},
	} {
		if k.value != "" {
			about = append(about, revocation.Key(k.kind, k.value))
		}
	}
	entries, err := i.Store.Revocations(ctx, about, i.Now())
	if err != nil {
		return nil, fmt.Errorf("revocation log: %w", err)
	}
	issuedAt := time.Unix(int64(claims.IssuedAt), 0)
	is := slices.ContainsFunc(entries, func(r storage.Revocation) bool { return revocation.Refuses(r, issuedAt) })
	return &is, nil
}

// revokedByFeed asks the issuer's revocation feed, as an API would. It returns
// nil when the issuer has none, or the token is not one an API would take.
func revokedByFeed(ctx context.Context, issuer, token string, v inspection) (*bool, error) {
	const patience = 10 * time.Second
	var claims struct {
		Audience any `json:"aud"`
	}
	if json.Unmarshal(v.Claims, &claims) != nil {
		return nil, nil
	}
	audience, _ := claims.Audience.(string)
	if list, ok := claims.Audience.([]any); ok && len(list) > 0 {
		audience, _ = list[0].(string)
	}
	if audience == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel() // which ends what the verifier does in the background
	verifier, err := verify.New(ctx, issuer, audience, verify.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	for verifier.Ready() != nil {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	if verifier.Revocation().FeedID == "" {
		return nil, nil
	}
	_, err = verifier.Verify(ctx, token)
	is := errors.Is(err, verify.ErrRevoked)
	if err != nil && !is {
		return nil, nil
	}
	return &is, nil
}

// describe writes the token for people, the largest claims first.
func (v inspection) describe(w io.Writer) {
	field(w, "signature", v.Signature+mark(v.Reason != "", ": "+v.Reason, ""))
	switch {
	case v.Revoked == nil:
		field(w, "revoked", "not known here")
	default:
		field(w, "revoked", mark(*v.Revoked, "yes", "no"))
	}
	var issued struct {
		At float64 `json:"iat"`
	}
	if json.Unmarshal(v.Claims, &issued) == nil && issued.At > 0 {
		field(w, "issued", instant(time.Unix(int64(issued.At), 0)).String())
	}
	if end := v.expiry(); !end.IsZero() {
		field(w, "expires", instant(end).String()+mark(v.Expired, "   (over)", ""))
	}
	field(w, "size", fmt.Sprintf("%d bytes", v.Size))
	field(w, "header", printable(v.Header))
	fmt.Fprintln(w)
	var claims map[string]json.RawMessage
	if json.Unmarshal(v.Claims, &claims) != nil {
		return
	}
	names := slices.SortedFunc(maps.Keys(claims), func(a, b string) int {
		return cmp.Or(cmp.Compare(v.SizeByClaim[b], v.SizeByClaim[a]), strings.Compare(a, b))
	})
	fmt.Fprintln(w, "CLAIM\tBYTES\tVALUE")
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%d\t%s\n", printable([]byte(name)), v.SizeByClaim[name], printable(claims[name]))
	}
}

// printable keeps a stranger's token from writing control sequences to a terminal.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, string(b))
}

// openExisting opens the database if there is one to open: it never makes one
// to look into a token, and returns nil without one.
func (a *app) openExisting(ctx context.Context) (*instance, error) {
	db := a.common.database(func(string, string, string) {}) // a.open tells the faults
	if db.mustExist() != nil {
		return nil, nil
	}
	return a.open(ctx)
}

package web_test

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/verify"
)

// listed returns what the status list says of the token (Token Status List
// §8.3): 0 valid, 1 invalid. It is what a stranger's verifier does.
func (s *site) listed(token string) int {
	s.t.Helper()
	index, uri := s.statusClaim(token)
	a := s.get(strings.TrimPrefix(uri, s.issuer), "Accept", "application/statuslist+jwt")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/statuslist+jwt" {
		s.t.Fatalf("%s: %d %s", uri, a.status, a.body)
	}
	signed, err := jose.ParseSignedCompact(a.body, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		s.t.Fatal(err)
	}
	h := signed.Signatures[0].Protected
	set := s.jwks()
	keys := set.Key(h.KeyID)
	if h.ExtraHeaders["typ"] != "statuslist+jwt" || len(keys) != 1 {
		s.t.Fatalf("typ %v, %d keys", h.ExtraHeaders["typ"], len(keys))
	}
	payload, err := signed.Verify(keys[0])
	if err != nil {
		s.t.Fatal(err)
	}
	var c struct {
		Sub           string
		Iat, Exp, TTL int64
		List          struct {
			Bits int
			Lst  string
		} `json:"status_list"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		s.t.Fatal(err)
	}
	now := s.clock.now().Unix()
	if c.Sub != uri || c.List.Bits != 1 || c.TTL != 10 || c.Iat > now || c.Exp <= now || c.Exp > now+600 {
		s.t.Errorf("the list's claims: %s", payload)
	}
	r, err := zlib.NewReader(bytes.NewReader(unbase64(s.t, c.List.Lst)))
	if err != nil {
		s.t.Fatal(err)
	}
	bits, err := io.ReadAll(r)
	if err != nil || len(bits) != 1<<17 {
		s.t.Fatalf("%d bytes, %v", len(bits), err)
	}
	return int(bits[index/8] >> (index % 8) & 1)
}

func (s *site) statusClaim(token string) (index int64, uri string) {
	s.t.Helper()
	_, claims := decode(s.t, token)
	status, _ := claims["status"].(map[string]any)
	ref, _ := status["status_list"].(map[string]any)
	uri, _ = ref["uri"].(string)
	number, _ := ref["idx"].(json.Number)
	index, err := number.Int64()
	if err != nil || uri == "" || len(ref) != 2 || len(status) != 1 {
		s.t.Fatalf("status is %v", claims["status"])
	}
	return index, uri
}

// becomes waits until the list says this of the token.
func (s *site) becomes(what, token string, want int) {
	s.t.Helper()
	for end := time.Now().Add(patience); s.listed(token) != want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: the list does not say %d of the token", what, want)
		}
	}
}

func (s *site) listStatus(is bool) {
	s.t.Helper()
	if _, err := s.admin.UpdateResource(s.t.Context(), ordersURI, func(r *storage.Resource) { r.StatusList = is }); err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

func TestStatusList(t *testing.T) {
	const scope = "openid profile offline_access orders:read"
	onBoth(t, options{path: "/tenant"}, func(t *testing.T, s *site) {
		ctx := t.Context()
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		secret := s.people()
		b := s.browser()
		plain := s.redeem(secret, b.consents(ada, password, scope)).member("access_token")
		s.listStatus(true)
		tokens := s.redeem(secret, b.consents(ada, password, scope))
		token := tokens.member("access_token")
		bound := s.redeem(secret, b.consents(ada, password, "openid profile orders:read")).member("access_token")
		other := s.redeem(secret, s.browser().consents(bob, password, scope)).member("access_token")
		if _, claims := decode(t, plain); claims["status"] != nil {
			t.Error("a token names a status list that its resource did not ask for")
		}
		// A grant from before has no place in a list, and neither has a service.
		for _, without := range []string{s.token("service", s.rotated("service"), "orders:read")} {
			if _, claims := decode(t, without); claims["status"] != nil {
				t.Error("a service's token names a status list: there is no grant to list")
			}
		}
		issuerOnly := s.redeem(secret, b.consents(ada, password, "openid profile")).member("access_token")
		if _, claims := decode(t, issuerOnly); claims["status"] != nil {
			t.Error("a token for the issuer names a status list")
		}

		// One place for each grant, whatever token of it.
		index, uri := s.statusClaim(token)
		refreshed := s.form("/token", "shop", secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.member("refresh_token")}})
		if again, _ := s.statusClaim(refreshed.member("access_token")); again != index {
			t.Errorf("refreshed: index %d, was %d", again, index)
		}
		if another, _ := s.statusClaim(bound); another == index || uri != s.issuer+"/statuslists/0" {
			t.Errorf("two grants have the index %d, in %s", index, uri)
		}

		for _, tk := range []string{token, bound, other} {
			s.becomes("at first", tk, 0)
		}
		s.revokeToken("shop", secret, refreshed.member("refresh_token"))
		s.becomes("its refresh token revoked", token, 1)
		b.open("/logout").press("submit")
		s.becomes("signed out", bound, 1)
		s.becomes("somebody else's", other, 0)
		_, err := s.admin.DisableUser(ctx, bob)
		ok(err)
		s.becomes("the person disabled", other, 1)
		_, err = s.admin.EnableUser(ctx, bob)
		ok(err)
		s.becomes("and enabled again", other, 0)
		_, err = s.admin.DisableClient(ctx, "shop")
		ok(err)
		s.becomes("the client disabled", other, 1)
		_, err = s.admin.EnableClient(ctx, "shop")
		ok(err)
		s.becomes("and enabled again", other, 0)

		// When no token of the grant can be alive any more, its bit is cleared.
		s.clock.set(provider.DefaultPolicy().RevokedUntil(time.Unix(0, 0)).Sub(time.Unix(0, 0)) + time.Second)
		s.becomes("long after", token, 0)

		a := s.get("/statuslists/0")
		if again := s.get("/statuslists/0", "If-None-Match", a.header.Get("Etag")); again.status != http.StatusNotModified && again.body == a.body {
			t.Errorf("with its ETag: %d", again.status)
		}
		for _, path := range []string{"1", "-1", "00", "x", "9223372036854775808", "0/1", ""} {
			if a := s.get("/statuslists/" + path); a.status != http.StatusNotFound {
				t.Errorf("/statuslists/%s: %d", path, a.status)
			}
		}
	})
}

// However many give their consent at once, at however many replicas: no two
// grants share a place.
func TestStatusIndexesAreDistinct(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.listStatus(true)
		replica := newSite(t, s.db.open(t), options{beside: s})
		seen := make(map[string]bool)
		for i := range 6 {
			site := []*site{s, replica}[i%2]
			index, uri := s.statusClaim(s.redeem(secret, site.browser().consents(ada, password, "openid profile orders:read")).member("access_token"))
			place := fmt.Sprint(index, uri)
			if seen[place] {
				t.Errorf("%s twice", place)
			}
			seen[place] = true
		}
	})
}

// The package verify judges by the list, where that is all it is to follow.
func TestVerifyReadsStatusLists(t *testing.T) {
	t.Parallel()
	s := newSite(t, openStore(t, migrations.SQLite), options{})
	secret := s.people()
	s.listStatus(true)
	v, err := verify.New(t.Context(), s.issuer, ordersURI, verify.WithStatusList(), verify.WithLogger(s.logger))
	if err != nil {
		t.Fatal(err)
	}
	tokens := s.redeem(secret, s.browser().consents(ada, password, "openid profile offline_access orders:read"))
	token := tokens.member("access_token")
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if _, err = v.Verify(t.Context(), token); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	s.revokeToken("shop", secret, tokens.member("refresh_token"))
	for end := time.Now().Add(patience); !errors.Is(err, verify.ErrRevoked); time.Sleep(100 * time.Millisecond) {
		if _, err = v.Verify(t.Context(), token); time.Now().After(end) {
			t.Fatalf("after the revocation: %v", err)
		}
	}
}

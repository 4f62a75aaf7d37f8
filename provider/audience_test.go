package provider

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const testIssuer = "https://login.example"

// testSnapshot has two APIs and the roles of one of them.
func testSnapshot() *snapshot {
	orders := &storage.Resource{
		URI: "https://orders.example", SigningAlg: "ES256", TokenLifetime: 10 * time.Minute, RolesClaim: true,
		Scopes: []storage.Scope{{Name: "orders:read"}, {Name: "orders:write"}, {Name: "orders:report", Role: "orders-admin"}},
	}
	stock := &storage.Resource{
		URI: "https://stock.example", SigningAlg: "ES256", TokenLifetime: 5 * time.Minute,
		Scopes: []storage.Scope{{Name: "stock:read"}},
	}
	bank := &storage.Resource{
		URI: "https://bank.example", SigningAlg: "RS256", TokenLifetime: 5 * time.Minute,
		Scopes: []storage.Scope{{Name: "pay"}},
	}
	s := &snapshot{
		resources: map[string]*storage.Resource{},
		owners:    map[string]*storage.Resource{},
		scopes:    map[string]storage.Scope{},
		roles: map[string]storage.Role{
			"orders-admin": {Name: "orders-admin", Resource: orders.URI},
			"auditor":      {Name: "auditor", Resource: orders.URI},
			"staff":        {Name: "staff"},
		},
	}
	for _, r := range []*storage.Resource{orders, stock, bank} {
		s.resources[r.URI] = r
		for _, sc := range r.Scopes {
			s.owners[sc.Name], s.scopes[sc.Name] = r, sc
		}
	}
	return s
}

func TestDecide(t *testing.T) {
	all := []string{"orders:read", "orders:write", "orders:report", "stock:read", "pay"}
	orders := []string{"orders:read", "orders:write", "orders:report"}
	for _, tc := range []struct {
		name       string
		scopes     string
		resources  []string
		allowed    []string
		held       []string
		firstParty bool

		wantErr      string // the OAuth code, and a word of the description after a colon
		wantAudience string
		wantScopes   string
		wantRoles    string
		wantAlg      string
		wantLifetime time.Duration
	}{
		{name: "the scope's owner is the audience", scopes: "orders:read", allowed: all,
			wantAudience: "https://orders.example", wantScopes: "orders:read", wantAlg: "ES256", wantLifetime: 10 * time.Minute},
		{name: "scopes of two resources and none named", scopes: "orders:read stock:read", allowed: all,
			wantErr: "invalid_scope:https://orders.example, https://stock.example"},
		{name: "the resource parameter picks what is meaningful to it", scopes: "orders:read stock:read", allowed: all,
			resources: []string{"https://stock.example"}, wantAudience: "https://stock.example", wantScopes: "stock:read", wantLifetime: 5 * time.Minute},
		{name: "two resources share the shorter lifetime", scopes: "orders:read stock:read", allowed: all,
			resources:    []string{"https://orders.example", "https://stock.example"},
			wantAudience: "https://orders.example https://stock.example", wantScopes: "orders:read stock:read", wantLifetime: 5 * time.Minute},
		{name: "two resources with different algorithms", scopes: "orders:read pay", allowed: all,
			resources: []string{"https://orders.example", "https://bank.example"}, wantErr: "invalid_target:algorithms"},
		{name: "a resource beside another for which no scope is granted", scopes: "orders:read", allowed: orders,
			resources: []string{"https://orders.example", "https://stock.example"}, wantErr: "invalid_target:https://stock.example"},
		{name: "the issuer beside a resource without a scope of its own", scopes: "orders:read", allowed: orders,
			resources: []string{"https://orders.example", testIssuer}, wantErr: "invalid_target:" + testIssuer},
		{name: "unknown resource", scopes: "orders:read", allowed: all,
			resources: []string{"https://nobody.example"}, wantErr: "invalid_target:not known"},
		{name: "unknown scope", scopes: "orders:fly", allowed: all, wantErr: "invalid_scope:orders:fly"},
		{name: "scope of another client", scopes: "stock:read", allowed: orders, wantErr: "invalid_scope:not registered"},
		{name: "nothing asked gives what is registered, less what needs a missing role", allowed: orders,
			wantAudience: "https://orders.example", wantScopes: "orders:read orders:write"},
		{name: "nothing asked and several resources registered", allowed: all, wantErr: "invalid_scope:several resources"},
		{name: "nothing asked but the resource", allowed: all, resources: []string{"https://stock.example"},
			wantAudience: "https://stock.example", wantScopes: "stock:read"},
		{name: "a scope without its role is dropped", scopes: "orders:read orders:report", allowed: all,
			wantAudience: "https://orders.example", wantScopes: "orders:read"},
		{name: "only a scope without its role", scopes: "orders:report", allowed: all, wantErr: "invalid_scope:orders-admin"},
		{name: "a third party's roles are those that gate a granted scope", scopes: "orders:report", allowed: all,
			held: []string{"orders-admin", "auditor", "staff"}, wantAudience: "https://orders.example", wantScopes: "orders:report", wantRoles: "orders-admin"},
		{name: "a first party's roles are the resource's and the global ones", scopes: "orders:read", allowed: all, firstParty: true,
			held: []string{"orders-admin", "auditor", "staff"}, wantAudience: "https://orders.example", wantScopes: "orders:read", wantRoles: "auditor orders-admin staff"},
		{name: "no roles claim where the resource does not ask", scopes: "stock:read", allowed: all, firstParty: true,
			held: []string{"staff"}, wantAudience: "https://stock.example", wantScopes: "stock:read"},
		{name: "openid alone is meant for the issuer", scopes: "openid", allowed: []string{"openid"},
			wantAudience: testIssuer, wantScopes: "openid"},
		{name: "openid adds the issuer to a resource", scopes: "openid orders:read", allowed: append([]string{"openid"}, orders...),
			wantAudience: "https://orders.example " + testIssuer, wantScopes: "openid orders:read"},
		{name: "openid means nothing to a named resource", scopes: "openid orders:read", allowed: append([]string{"openid"}, orders...),
			resources: []string{"https://orders.example"}, wantAudience: "https://orders.example", wantScopes: "orders:read"},
		{name: "a registered scope whose resource is gone", scopes: "gone", allowed: []string{"gone"}, wantErr: "invalid_scope:gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := wish{scopes: strings.Fields(tc.scopes), resources: tc.resources}
			got, err := testSnapshot().decide(testIssuer, w, tc.allowed, tc.held, tc.firstParty)
			if tc.wantErr != "" {
				code, word, _ := strings.Cut(tc.wantErr, ":")
				if e := toError(orNil(err)); err == nil || e.Code != code || !strings.Contains(e.Description, word) {
					t.Fatalf("err = %v, want %s mentioning %q", err, code, word)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a := strings.Join(got.audience, " "); a != tc.wantAudience {
				t.Errorf("audience = %q, want %q", a, tc.wantAudience)
			}
			if s := strings.Join(got.scopes, " "); s != tc.wantScopes {
				t.Errorf("scopes = %q, want %q", s, tc.wantScopes)
			}
			if r := strings.Join(got.roles, " "); r != tc.wantRoles {
				t.Errorf("roles = %q, want %q", r, tc.wantRoles)
			}
			if tc.wantAlg != "" && got.alg != tc.wantAlg {
				t.Errorf("alg = %q, want %q", got.alg, tc.wantAlg)
			}
			if tc.wantLifetime != 0 && got.lifetime != tc.wantLifetime {
				t.Errorf("lifetime = %s, want %s", got.lifetime, tc.wantLifetime)
			}
		})
	}
}

// orNil lets toError be asked about an error that may be missing.
func orNil(err error) error {
	if err == nil {
		return &Error{}
	}
	return err
}

func TestReadWish(t *testing.T) {
	policy := DefaultPolicy()
	many := make([]string, policy.MaxScopes+1)
	for i := range many {
		many[i] = "s" + string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	for _, tc := range []struct {
		name string
		form url.Values
		want string // error code, "" for none
	}{
		{"plain", url.Values{"scope": {"a b"}, "resource": {"https://a.example", "https://b.example"}}, ""},
		{"scope repeated within the parameter", url.Values{"scope": {"a a a"}}, ""},
		{"quote in a scope", url.Values{"scope": {`a"b`}}, "invalid_scope"},
		{"control character in a scope", url.Values{"scope": {"a\tb"}}, "invalid_scope"},
		{"letter beyond ASCII in a scope", url.Values{"scope": {"é"}}, "invalid_scope"},
		{"too many scopes", url.Values{"scope": {strings.Join(many, " ")}}, "invalid_scope"},
		{"relative resource", url.Values{"resource": {"/orders"}}, "invalid_target"},
		{"resource with a fragment", url.Values{"resource": {"https://a.example/#x"}}, "invalid_target"},
		{"resource with an empty fragment", url.Values{"resource": {"https://a.example/#"}}, "invalid_target"},
		{"empty resource", url.Values{"resource": {""}}, "invalid_target"},
		{"too many resources", url.Values{"resource": {"a:1", "a:2", "a:3", "a:4", "a:5", "a:6", "a:7", "a:8", "a:9"}}, "invalid_target"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, err := readWish(tc.form, policy)
			if got := toError(orNil(err)).Code; got != tc.want {
				t.Fatalf("code = %q, want %q (%v)", got, tc.want, err)
			}
			if err == nil && len(slices.Compact(w.scopes)) != len(w.scopes) {
				t.Fatalf("scopes repeat: %v", w.scopes)
			}
		})
	}
}

// One resource, spelt as RFC 3986 says that it may be; and nothing that is
// another one.
func TestAsRegistered(t *testing.T) {
	s := testSnapshot()
	for _, uri := range []string{"https://mcp.example/mcp", "https://slash.example/", "urn:stock"} {
		s.resources[uri] = &storage.Resource{URI: uri}
	}
	for asked, want := range map[string]string{
		"https://orders.example":  "https://orders.example",
		"https://orders.example/": "https://orders.example",
		"HTTPS://Orders.Example/": "https://orders.example",
		"https://slash.example":   "https://slash.example/",
		"https://MCP.example/mcp": "https://mcp.example/mcp",
		testIssuer + "/":          testIssuer,

		"https://mcp.example/mcp/":       "",
		"https://mcp.example/MCP":        "",
		"https://mcp.example":            "",
		"https://orders.example//":       "",
		"https://orders.example/?":       "",
		"https://orders.example/orders":  "",
		"https://orders.example:443":     "",
		"http://orders.example/":         "",
		"https://x@orders.example/":      "",
		"https://orders.example.evil/":   "",
		"https://orders%2Eexample/":      "",
		"urn:Stock":                      "",
		"https:orders.example":           "",
		"https://evil.example/mcp":       "",
		"https://orders.example/%2e%2e/": "",
	} {
		if want == "" {
			want = asked
		}
		if got := s.asRegistered(testIssuer, wish{resources: []string{asked}}); !slices.Equal(got.resources, []string{want}) {
			t.Errorf("%s is taken for %v, want %s", asked, got.resources, want)
		}
	}
	twice := wish{resources: []string{"https://orders.example/", "https://stock.example", "https://orders.example"}}
	if got := s.asRegistered(testIssuer, twice).resources; !slices.Equal(got, []string{"https://orders.example", "https://stock.example"}) {
		t.Errorf("twice the same: %v", got)
	}
	if twice.resources[0] != "https://orders.example/" {
		t.Error("the request's own list was changed")
	}
}

package verify_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
)

func TestPolicies(t *testing.T) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(t, verify.WithResourceMetadata(metadataURL))
	const where = `, resource_metadata="` + metadataURL + `"`
	ago := func(d time.Duration) edit { return set("auth_time", epoch.Add(-d).Unix()) }
	type policy = func(http.Handler) http.Handler
	scope, both, role := verify.RequireScope("admin"), verify.RequireScope("orders:read", "orders:write"), verify.RequireRole("clerk", "orders:read")
	acr, maxAge := verify.RequireACR("mfa", "phr"), verify.RequireMaxAge(5*time.Minute)
	lacksScope := func(scope string) string {
		return `Bearer error="insufficient_scope", error_description="the access token lacks a scope", scope="` + scope + `"` + where
	}
	stepUp := func(param string) string {
		return `Bearer error="insufficient_user_authentication", error_description="a different or more recent sign-in is required", ` + param + where
	}
	rows := []struct {
		name      string
		policy    policy
		edits     []edit
		challenge string // empty: passes
	}{
		{"V31 the scope", scope, []edit{set("scope", "orders:read admin")}, ""},
		{"V31 a longer scope", scope, []edit{set("scope", "admin2")}, lacksScope("admin")},
		{"V31 a scope that contains it", scope, []edit{set("scope", "superadmin orders:admin admin:read")}, lacksScope("admin")},
		{"V31 a shorter scope", scope, []edit{set("scope", "admi")}, lacksScope("admin")},
		{"V31 another case", scope, []edit{set("scope", "Admin")}, lacksScope("admin")},
		{"V31 separated by a tab", scope, []edit{set("scope", "x\tadmin")}, lacksScope("admin")},
		{"V31 no scope", scope, []edit{set("scope", nil)}, lacksScope("admin")},
		{"V31 a role of that name", scope, []edit{set("roles", []string{"admin"})}, lacksScope("admin")},
		{"V31 both scopes", both, nil, ""},
		{"V31 one of two scopes", both, []edit{set("scope", "orders:write")}, lacksScope("orders:read orders:write")},

		{"V31 role and scope", role, []edit{set("roles", []string{"x", "clerk"})}, ""},
		{"V31 role without its scope", role, []edit{set("roles", []string{"clerk"}), set("scope", "orders:write")}, lacksScope("orders:read")},
		{"V31 scope without its role", role, []edit{set("roles", []string{"clerk2", "Clerk"})},
			`Bearer error="insufficient_scope", error_description="the subject lacks a role", scope="orders:read"` + where},

		{"V34 first acr", acr, []edit{set("acr", "mfa")}, ""},
		{"V34 second acr", acr, []edit{set("acr", "phr")}, ""},
		{"V34 lower acr", acr, []edit{set("acr", "pwd")}, stepUp(`acr_values="mfa phr"`)},
		{"V34 acr in a longer one", acr, []edit{set("acr", "mfa phr")}, stepUp(`acr_values="mfa phr"`)},
		{"V34 no acr", acr, nil, stepUp(`acr_values="mfa phr"`)},

		{"V34 signed in just now", maxAge, []edit{ago(0)}, ""},
		{"V34 signed in 5 min ago", maxAge, []edit{ago(5 * time.Minute)}, ""},
		{"V34 signed in longer ago", maxAge, []edit{ago(5*time.Minute + time.Second)}, stepUp(`max_age="300"`)},
		{"V34 signed in ahead of us, within the skew", maxAge, []edit{ago(-30 * time.Second)}, ""},
		{"V34 signed in in the future", maxAge, []edit{ago(-31 * time.Second)}, stepUp(`max_age="300"`)},
		{"V34 nobody signed in", maxAge, nil, stepUp(`max_age="300"`)},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w := serve(v.Middleware(r.policy(whoami)), request("GET", "/", header("Authorization", "Bearer "+key.token(r.edits...))))
			if r.challenge == "" {
				if w.Code != 200 || w.Body.String() != "alice" {
					t.Errorf("%d %s", w.Code, w.Header().Get("WWW-Authenticate"))
				}
				return
			}
			if status, code := 403, "insufficient_scope"; r.challenge == lacksScope("admin") || w.Code == status {
				answered(t, w, status, r.challenge, code)
				return
			}
			answered(t, w, 401, r.challenge, "insufficient_user_authentication")
		})
	}
	t.Run("V34 the verifier's clock decides", func(t *testing.T) {
		late := newProvider(key).verifier(t, verify.WithNow(func() time.Time { return epoch.Add(6 * time.Minute) }))
		w := serve(late.Middleware(maxAge(whoami)), request("GET", "/", header("Authorization", "Bearer "+key.token(ago(0)))))
		if w.Code != 401 {
			t.Error(w.Code)
		}
	})
}

func TestPoliciesThatRequireNothing(t *testing.T) {
	for name, f := range map[string]func(){
		"RequireScope()":                func() { verify.RequireScope() },
		`RequireScope("")`:              func() { verify.RequireScope("") },
		`RequireScope("a b")`:           func() { verify.RequireScope("a b") },
		`RequireScope with a quote`:     func() { verify.RequireScope(`a"`) },
		`RequireScope with a backslash`: func() { verify.RequireScope(`a\`) },
		`RequireScope with a letter`:    func() { verify.RequireScope("ä") },
		`RequireRole("", "a")`:          func() { verify.RequireRole("", "a") },
		`RequireRole("a", "")`:          func() { verify.RequireRole("a", "") },
		"RequireACR()":                  func() { verify.RequireACR() },
		"RequireMaxAge(0)":              func() { verify.RequireMaxAge(0) },
		"RequireMaxAge(-1 s)":           func() { verify.RequireMaxAge(-time.Second) },
	} {
		panics(t, name, f)
	}
}

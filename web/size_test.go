package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/storage"
)

// Access tokens are measured: large ones are warned of, too large ones refused,
// and both say which claims are to blame, never what is in them.
func TestTokenSize(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		s.register("service")
		var roles []string
		for i := range 60 {
			name := fmt.Sprintf("role-%02d-%s", i, strings.Repeat("x", 50))
			if _, err := s.admin.CreateRole(ctx, storage.Role{Name: name}); err != nil {
				t.Fatal(err)
			}
			roles = append(roles, name)
		}
		with := func(id string, n int) (secret string) {
			return s.client(id, func(c *storage.Client) { c.FirstParty, c.Roles = true, roles[:n] })
		}
		small, large, huge := with("small", 1), with("large", 12), with("huge", 60)
		s.settle()
		const warning = "so large that some proxies refuse it"
		if token := s.token("small", small, "orders:read"); len(token) >= 1024 || strings.Contains(s.log.String(), warning) {
			t.Errorf("a token of %d bytes, warned of: %t", len(token), strings.Contains(s.log.String(), warning))
		}
		for range 3 {
			if token := s.token("large", large, "orders:read"); len(token) < 1024 {
				t.Fatalf("only %d bytes", len(token))
			}
		}
		log := s.log.String()
		if n := strings.Count(log, warning); n != 1 {
			t.Errorf("%d warnings for three tokens of one client, want one", n)
		}
		if !strings.Contains(log, `"largest_claims":"roles `) || strings.Contains(log, roles[0]) {
			t.Error("the warning does not name the largest claim, or tells what is in it")
		}
		a := s.form("/token", "huge", huge, url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		a.isRefusal(t, http.StatusBadRequest, "invalid_scope")
		if d := a.member("error_description"); !strings.Contains(d, "largest claims in bytes: roles ") || strings.Contains(d, roles[0]) {
			t.Errorf("the refusal says %q", d)
		}
	})
}

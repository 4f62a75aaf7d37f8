package proof

import (
	"net/http"
	"testing"
)

// No replica holds anything that another one needs: each step of a sign-in may
// land elsewhere, and nothing that was answered is gone after a crash.
func TestEveryStepAtAnyServer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		shop, ada := d.app("shop"), d.person("ada")
		b := d.browser(ada)
		tokens := shop.redeem(b.code(shop))
		if tokens.Status != http.StatusOK || tokens.Member("refresh_token") == "" || tokens.Member("id_token") == "" {
			t.Fatalf("%s", tokens)
		}
		code := b.code(shop)
		for _, s := range d.servers() {
			s.kill()
		}
		d.start(d.replicas())
		if r := shop.redeem(code); r.Status != http.StatusOK {
			t.Errorf("a code from before the crash: %s", r)
		}
		next := shop.refresh(tokens.Member("refresh_token"))
		if next.Status != http.StatusOK || !shop.active(tokens.Member("access_token")) {
			t.Errorf("a refresh token from before the crash: %s", next)
		}
		must(t, b.Open("/account"))
		if b.Status != http.StatusOK || b.URL.Path != "/account" {
			t.Errorf("a session from before the crash: %s", b.Page)
		}
		// R4: what was used before a crash stays used after it.
		if r := shop.refresh(next.Member("refresh_token")); r.Status != http.StatusOK {
			t.Fatalf("%s", r)
		}
		for _, s := range d.servers() {
			s.kill()
		}
		d.start(d.replicas())
		if r := shop.refresh(tokens.Member("refresh_token")); r.Member("error") != "invalid_grant" {
			t.Errorf("a used refresh token after the crash: %s", r)
		}
		if r := shop.redeem(code); r.Member("error") != "invalid_grant" {
			t.Errorf("a used code after the crash: %s", r)
		}
	})
}

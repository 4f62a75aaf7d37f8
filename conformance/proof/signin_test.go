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
		if tokens.status != http.StatusOK || tokens.member("refresh_token") == "" || tokens.member("id_token") == "" {
			t.Fatalf("%s", tokens)
		}
		code := b.code(shop)
		for _, s := range d.servers() {
			s.kill()
		}
		d.start(d.replicas())
		if r := shop.redeem(code); r.status != http.StatusOK {
			t.Errorf("a code from before the crash: %s", r)
		}
		next := shop.refresh(tokens.member("refresh_token"))
		if next.status != http.StatusOK || !shop.active(tokens.member("access_token")) {
			t.Errorf("a refresh token from before the crash: %s", next)
		}
		must(t, b.open("/account"))
		if b.status != http.StatusOK || b.url.Path != "/account" {
			t.Errorf("a session from before the crash: %s", b.page)
		}
		// R4: what was used before a crash stays used after it.
		if r := shop.refresh(next.member("refresh_token")); r.status != http.StatusOK {
			t.Fatalf("%s", r)
		}
		for _, s := range d.servers() {
			s.kill()
		}
		d.start(d.replicas())
		if r := shop.refresh(tokens.member("refresh_token")); r.member("error") != "invalid_grant" {
			t.Errorf("a used refresh token after the crash: %s", r)
		}
		if r := shop.redeem(code); r.member("error") != "invalid_grant" {
			t.Errorf("a used code after the crash: %s", r)
		}
	})
}

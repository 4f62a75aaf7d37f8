package web_test

import (
	"net/url"
	"testing"
)

// A client identifier that is used again after its client was deleted starts
// clean: the old client's tokens stay refused, the new one's are good.
func TestClientDeletedAndCreatedAgain(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		old := s.token("shop", s.register("shop"), "orders:read")
		if err := s.admin.DeleteClient(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		// Not by s.client, which makes clients of an hour ago.
		_, secret, err := s.admin.CreateClient(t.Context(), service("shop"))
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		active := func(token string) any {
			return s.form("/introspect", "shop", secret, url.Values{"token": {token}}).json["active"]
		}
		if active(s.token("shop", secret, "orders:read")) != true {
			t.Error("a token of the new client is refused")
		}
		if active(old) != false {
			t.Error("a token of the deleted client is accepted")
		}
	})
}

package issuer

import (
	"net/url"
	"testing"
)

// A person signs in over TLS and ends at an app, which nobody has to serve.
func TestIssuer(t *testing.T) {
	t.Parallel()
	program, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	i := Start(t, program, "")
	const callback = "https://app.example/cb"
	i.Client("app", callback)
	b := i.Browser(i.Person("ada"))
	request := url.Values{"response_type": {"code"}, "client_id": {"app"}, "redirect_uri": {callback}, "scope": {"openid"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}
	if err := b.Consent(i.URL + "/authorize?" + request.Encode()); err != nil {
		t.Fatal(err)
	}
	if b.Left == nil || !b.Left.Query().Has("code") || b.Left.Query().Get("iss") != i.URL {
		t.Errorf("%s", b.Page)
	}
	if err := i.Tell("the truth"); err == nil {
		t.Error("it tells a lie that does not exist")
	}
}

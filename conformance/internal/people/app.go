package people

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
)

// App is a relying party: a confidential client that authenticates with its
// secret (RFC 6749 §2.3.1).
type App struct {
	Issuer     string
	Via        http.RoundTripper
	ID, Secret string
	Callback   string // its redirect URI, which is never called
	Verifier   string // RFC 7636 §4.1; the same for each of its requests, which a test may
}

// Request is an authorization request; alter holds parameters and values in
// turn, "" takes one out.
func (a *App) Request(alter ...string) url.Values {
	v := url.Values{
		"response_type": {"code"}, "client_id": {a.ID}, "redirect_uri": {a.Callback}, "state": {"st"}, "nonce": {"no"},
		"scope":          {"openid offline_access orders:read"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(a.Verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i+1 < len(alter); i += 2 {
		v.Set(alter[i], alter[i+1])
		if alter[i+1] == "" {
			v.Del(alter[i])
		}
	}
	return v
}

// Post sends a form to a path below the issuer as the app. The error is of the
// connection: whether it took effect is then unknown.
func (a *App) Post(path string, form url.Values) (Reply, error) {
	pair := url.QueryEscape(a.ID) + ":" + url.QueryEscape(a.Secret)
	return Send(a.Via, http.MethodPost, a.Issuer+path, form, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
}

// TryRedeem exchanges a code.
func (a *App) TryRedeem(code string) (Reply, error) {
	return a.Post("/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.Callback}, "code_verifier": {a.Verifier}})
}

// TryRefresh uses a refresh token.
func (a *App) TryRefresh(token string) (Reply, error) {
	return a.Post("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// TryRevoke revokes a token (RFC 7009).
func (a *App) TryRevoke(token string) (Reply, error) {
	return a.Post("/revoke", url.Values{"token": {token}})
}

// TryIntrospect introspects a token (RFC 7662).
func (a *App) TryIntrospect(token string) (Reply, error) {
	return a.Post("/introspect", url.Values{"token": {token}})
}

// Active says whether a token of the app's is active.
func (a *App) Active(token string) (bool, error) {
	r, err := a.TryIntrospect(token)
	if err == nil && r.Status != http.StatusOK {
		err = fmt.Errorf("introspection: %s", r)
	}
	return r.Member("active") == "true", err
}

// Reply is what came back.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

func (r Reply) String() string { return fmt.Sprintf("%d %s", r.Status, strings.TrimSpace(r.Body)) }

// Member returns a member of a JSON answer as text, "" when it is not there.
func (r Reply) Member(name string) string {
	var members map[string]any
	_ = json.Unmarshal([]byte(r.Body), &members)
	if v, ok := members[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// Send sends a request; header holds names and values in turn. The error is of
// the connection.
func Send(via http.RoundTripper, method, address string, form url.Values, header ...string) (Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return Reply{}, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := via.RoundTrip(req)
	if err != nil {
		return Reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return Reply{res.StatusCode, res.Header, string(body)}, err
}

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	maxAnswer   = 1 << 20 // bytes read of an answer
	maxQuantity = 9       // of one product in one order
	// maxRefreshes is how many refreshes of other requests one follows.
	maxRefreshes = 10
	slack        = 30 * time.Second // an access token that ends sooner is not used any more
)

// An order is what the API tells of one.
type order struct {
	ID        string    `json:"id"`
	Item      string    `json:"item"`
	Quantity  int       `json:"quantity"`
	CreatedAt time.Time `json:"created_at"`
}

// list shows the person's orders.
func (a *App) list(w http.ResponseWriter, r *http.Request) {
	s := a.session(r)
	if s == nil {
		http.Redirect(w, r, "/signin?to=/orders", http.StatusSeeOther)
		return
	}
	var answer struct {
		Items []order `json:"items"`
		Next  string  `json:"next"`
	}
	if err := a.call(r.Context(), s, http.MethodGet, "/orders?limit=50", "", nil, &answer); err != nil {
		a.refuse(w, r, s, err)
		return
	}
	view := struct {
		Orders []order
		Placed *order // what was ordered just now
		More   bool
	}{Orders: answer.Items, More: answer.Next != ""}
	for i, o := range answer.Items {
		if o.ID == r.URL.Query().Get("placed") {
			view.Placed = &answer.Items[i]
		}
	}
	a.show(w, http.StatusOK, "orders", "Your orders", s, view)
}

// place orders something. The form's key makes a double click one order.
func (a *App) place(w http.ResponseWriter, r *http.Request) {
	s := a.session(r)
	if s == nil {
		http.Redirect(w, r, "/signin?to=/", http.StatusSeeOther)
		return
	}
	wanted, known := findProduct(r.PostFormValue("product"))
	quantity, err := strconv.Atoi(r.PostFormValue("quantity"))
	if !known || err != nil || quantity < 1 || quantity > maxQuantity {
		a.refuse(w, r, s, &refusal{status: http.StatusBadRequest, Title: "This can't be ordered",
			Advice: fmt.Sprintf("Choose something from the shop, 1 to %d of it.", maxQuantity)})
		return
	}
	body := map[string]any{"item": wanted.Name, "quantity": quantity}
	var made order
	if err := a.call(r.Context(), s, http.MethodPost, "/orders", r.PostFormValue("key"), body, &made); err != nil {
		var told *refusal
		if errors.As(err, &told) && told.status == http.StatusBadGateway { // the answer may be what was lost
			told.Advice = "It may have been ordered all the same: look at your orders before you try again."
		}
		a.refuse(w, r, s, err)
		return
	}
	a.save(w, s)
	http.Redirect(w, r, "/orders?"+url.Values{"placed": {made.ID}}.Encode(), http.StatusSeeOther)
}

// profile shows what the provider tells of the person, as it is now.
func (a *App) profile(w http.ResponseWriter, r *http.Request) {
	s := a.session(r)
	if s == nil {
		http.Redirect(w, r, "/signin?to=/profile", http.StatusSeeOther)
		return
	}
	p, err := a.discover(r.Context())
	if err != nil {
		a.refuse(w, r, s, unreachable("Your details can't be shown right now", err))
		return
	}
	token, err := a.refresh(r.Context(), p, s, a.issuer)
	if err != nil {
		a.refuse(w, r, s, err)
		return
	}
	who, err := a.userInfo(r.Context(), p, token, s.Subject)
	if err != nil {
		a.refuse(w, r, s, err)
		return
	}
	a.show(w, http.StatusOK, "profile", "Your profile", s, struct {
		person
		Issuer, Orders string
	}{who, a.issuer, a.orders})
}

// call asks the orders API in the person's name. A token that the API refuses
// is replaced once: it may have been revoked with what is granted still good.
func (a *App) call(ctx context.Context, s *session, method, path, key string, body, into any) error {
	p, err := a.discover(ctx)
	if err != nil {
		return unreachable("Orders can't be reached right now", err)
	}
	for again := false; ; again = true {
		if s.Access == "" || again || a.now().After(s.Expires.Add(-slack)) {
			token, err := a.refresh(ctx, p, s, a.orders)
			if err != nil {
				return err
			}
			s.Access, s.changed = token.AccessToken, true
			s.Expires = a.now().Add(time.Until(token.Expiry)) // oauth2 goes by the machine's clock
		}
		res, err := a.send(ctx, s.Access, method, path, key, body)
		if err != nil {
			return unreachable("Orders can't be reached right now", err)
		}
		if res.status == http.StatusUnauthorized && !again {
			continue
		}
		return res.read(into)
	}
}

// A response is an answer of the API.
type response struct {
	status int
	body   []byte
}

func (a *App) send(ctx context.Context, token, method, path, key string, body any) (response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return response{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.orders+path, bytes.NewReader(content))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := a.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	content, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return response{res.StatusCode, content}, err
}

// read decodes a good answer, and tells what to do about another.
func (r response) read(into any) error {
	var problem struct { // RFC 9457
		Detail string `json:"detail"`
	}
	switch {
	case r.status < 300:
		if err := json.Unmarshal(r.body, into); err != nil {
			return unreachable("Orders can't be reached right now", err)
		}
		return nil
	case r.status >= 500:
		return unreachable("Orders can't be reached right now", fmt.Errorf("status %d", r.status))
	}
	_ = json.Unmarshal(r.body, &problem) // without words the title has to do
	e := &refusal{status: http.StatusForbidden, Detail: problem.Detail, cause: fmt.Errorf("the API answered %d: %s", r.status, problem.Detail)}
	switch r.status {
	case http.StatusUnauthorized: // RFC 6750 §3.1
		e.Title, e.Advice = "The order service no longer accepts the shop", "It refused even a fresh permission to act for you. Nothing was ordered. Signing in again may help."
		e.SignIn, e.Account = "/orders", true
	case http.StatusForbidden: // insufficient_scope
		e.Title, e.Advice = "The shop isn't allowed to do this", "You can sign in again and allow it."
		e.SignIn, e.Account = "/orders", true
	default:
		e.status, e.Title, e.Advice = http.StatusBadRequest, "The order service didn't take this", "Nothing was ordered."
	}
	return e
}

// tokens are an answer of the token endpoint, and for whom.
type tokens struct {
	resource string
	*oauth2.Token
}

// errAccessEnded says that the provider gives no more tokens for this session.
var errAccessEnded = errors.New("access has ended")

// refresh returns a new access token for the resource (RFC 6749 §6, RFC 8707
// §2.2). Requests of one session share one refresh; one that wants a token for
// something else goes on from there. Copies of the shop know nothing of each
// other: there the provider's answer to a repeated refresh, the same successor,
// does that work.
func (a *App) refresh(ctx context.Context, p *provider, s *session, resource string) (*oauth2.Token, error) {
	for range maxRefreshes {
		refreshed, err := a.once(ctx, s.Refresh, func(ctx context.Context) (tokens, error) {
			// oauth2.Config has no way to send further parameters with a refresh.
			app := a.config(p)
			c := clientcredentials.Config{
				ClientID: app.ClientID, ClientSecret: app.ClientSecret, TokenURL: app.Endpoint.TokenURL, AuthStyle: app.Endpoint.AuthStyle,
				EndpointParams: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.Refresh}, "resource": {resource}},
			}
			t, err := c.Token(ctx)
			return tokens{resource, t}, err
		})
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) && refused.Response.StatusCode < 500 && refused.Response.StatusCode != http.StatusTooManyRequests {
			return nil, &refusal{status: http.StatusForbidden, Title: "The shop may no longer act for you",
				Advice: "Its access was withdrawn or has ended. Nothing was ordered. Sign in again if you want to go on.",
				Detail: refused.ErrorDescription, SignIn: "/orders", Account: true, cause: errors.Join(errAccessEnded, err)}
		}
		if err != nil {
			return nil, unreachable("The shop can't act for you right now", fmt.Errorf("refresh: %w", err))
		}
		if refreshed.RefreshToken != "" && refreshed.RefreshToken != s.Refresh {
			s.Refresh, s.changed = refreshed.RefreshToken, true
		}
		if refreshed.resource == resource {
			return refreshed.Token, nil
		}
	}
	return nil, unreachable("The shop can't act for you right now", errors.New("refresh: others were faster each time"))
}

// answered is how long an answer of the token endpoint is kept for who asks again.
const answered = time.Minute

// A flight is one request to the token endpoint.
type flight struct {
	done   chan struct{} // closed when the answer is there
	tokens tokens
	err    error
}

// once runs fetch, unless that is under way for the same secret or has just
// been done: then all get the one answer, for a code or a refresh token works
// once. A browser that gives up loses nothing, it gets the answer next time.
func (a *App) once(ctx context.Context, secret string, fetch func(context.Context) (tokens, error)) (tokens, error) {
	a.mu.Lock()
	f, found := a.flights[secret]
	if !found {
		f = &flight{done: make(chan struct{}), err: errors.New("no answer")}
		a.flights[secret] = f
	}
	a.mu.Unlock()
	if found {
		select {
		case <-f.done:
			return f.tokens, f.err
		case <-ctx.Done():
			return tokens{}, ctx.Err()
		}
	}
	defer close(f.done)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patient)
	defer cancel()
	f.tokens, f.err = fetch(oidc.ClientContext(ctx, a.client))
	keep := answered
	if f.err != nil {
		keep = 0
	}
	time.AfterFunc(keep, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.flights, secret)
	})
	return f.tokens, f.err
}

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/verifytest"
)

const audience = "https://orders.example"

// start runs the API behind a real listener, with an issuer of its own.
func start(t *testing.T) (*api, *verifytest.Issuer) {
	t.Helper()
	issuer := verifytest.NewIssuer(t)
	return startWith(t, Config{Issuer: issuer.URL, Audience: audience}), issuer
}

func startWith(t *testing.T, config Config) *api {
	t.Helper()
	config.Database = filepath.Join(t.TempDir(), "orders.db")
	app, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(app.Handler())
	t.Cleanup(func() {
		server.Close()
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	})
	return &api{t, server.URL}
}

// An api is the running server as its callers see it.
type api struct {
	t   *testing.T
	url string
}

// A reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

// call sends a request; headers come as name, value pairs. A body is JSON.
func (a *api) call(method, path, token, body string, headers ...string) reply {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

// order makes an order and returns its id.
func (a *api) order(token, item string, quantity int) string {
	a.t.Helper()
	got := a.call("POST", "/orders", token, fmt.Sprintf(`{"item":%q,"quantity":%d}`, item, quantity))
	if got.status != http.StatusCreated {
		a.t.Fatalf("order: %d %s", got.status, got.body)
	}
	return decodeAs[order](a.t, got).ID
}

func decodeAs[T any](t *testing.T, r reply) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
	return v
}

type page struct {
	Items []order
	Next  string
}

func readWrite() verifytest.Option { return verifytest.Scope("orders:read", "orders:write") }

func TestOrderLifeCycle(t *testing.T) {
	api, issuer := start(t)
	token := issuer.Token(audience, readWrite())

	created := api.call("POST", "/orders", token, `{"item":"tea","quantity":2}`)
	if created.status != http.StatusCreated {
		t.Fatalf("create: %d %s", created.status, created.body)
	}
	made := decodeAs[order](t, created)
	if made.Item != "tea" || made.Quantity != 2 || time.Since(made.CreatedAt).Abs() > time.Minute {
		t.Errorf("created %+v", made)
	}
	at := created.header.Get("Location")
	if at != "/orders/"+made.ID {
		t.Errorf("Location %q, want the order's address", at)
	}
	if got := api.call("GET", at, token, ""); got.status != http.StatusOK || got.body != created.body {
		t.Errorf("get: %d %s, want what create answered", got.status, got.body)
	}
	if got := decodeAs[page](t, api.call("GET", "/orders", token, "")); len(got.Items) != 1 || got.Items[0] != made || got.Next != "" {
		t.Errorf("list: %+v", got)
	}
	if got := api.call("DELETE", at, token, ""); got.status != http.StatusNoContent || got.body != "" {
		t.Errorf("delete: %d %s", got.status, got.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if got := api.call(method, at, token, ""); got.status != http.StatusNotFound {
			t.Errorf("%s after delete: %d", method, got.status)
		}
	}
	if got := api.call("GET", "/orders", token, ""); strings.TrimSpace(got.body) != `{"items":[]}` {
		t.Errorf("list after delete: %s", got.body)
	}
}

func TestOwnersDoNotSeeEachOthersOrders(t *testing.T) {
	api, issuer := start(t)
	alice := issuer.Token(audience, readWrite(), verifytest.Subject("alice"))
	bob := issuer.Token(audience, readWrite(), verifytest.Subject("bob"))
	id := api.order(alice, "tea", 1)

	for _, method := range []string{"GET", "DELETE"} {
		theirs := api.call(method, "/orders/"+id, bob, "")
		none := api.call(method, "/orders/00000000-0000-7000-8000-000000000000", bob, "")
		if theirs.status != http.StatusNotFound || theirs.body != none.body {
			t.Errorf("%s of somebody else's order: %d %s, want what a missing one gets: %s", method, theirs.status, theirs.body, none.body)
		}
	}
	if got := decodeAs[page](t, api.call("GET", "/orders", bob, "")); len(got.Items) != 0 {
		t.Errorf("bob lists %+v", got.Items)
	}
	if got := decodeAs[page](t, api.call("GET", "/orders?after=ffffffff-ffff-7fff-bfff-ffffffffffff", bob, "")); len(got.Items) != 0 {
		t.Errorf("bob lists %+v", got.Items)
	}
	if got := api.call("GET", "/orders/"+id, alice, ""); got.status != http.StatusOK {
		t.Errorf("alice's order is gone: %d", got.status)
	}
}

// The same subject at another issuer is somebody else.
func TestOwnerIsIssuerAndSubject(t *testing.T) {
	s, err := openStore(t.Context(), filepath.Join(t.TempDir(), "orders.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	here, there := owner{"https://a.example", "alice"}, owner{"https://b.example", "alice"}
	made, err := s.create(t.Context(), here, "key", "tea", 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.get(t.Context(), there, made.ID); !errors.Is(err, errNotFound) {
		t.Errorf("get by the other issuer's alice: %v", err)
	}
	if err := s.delete(t.Context(), there, made.ID); !errors.Is(err, errNotFound) {
		t.Errorf("delete by the other issuer's alice: %v", err)
	}
	if list, err := s.list(t.Context(), there, "", 10); err != nil || len(list) != 0 {
		t.Errorf("list by the other issuer's alice: %v %v", list, err)
	}
	if second, err := s.create(t.Context(), there, "key", "coffee", 2, time.Now()); err != nil || second.ID == made.ID {
		t.Errorf("the other issuer's alice shares an idempotency key: %v %v", second, err)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	api, issuer := start(t)
	id := api.order(issuer.Token(audience, readWrite()), "tea", 1)
	read := issuer.Token(audience, verifytest.Scope("orders:read"))
	write := issuer.Token(audience, verifytest.Scope("orders:write"))
	admin := verifytest.Roles("orders-admin")
	const body = `{"item":"tea","quantity":1}`

	tests := []struct {
		name, method, path, token, body string

		status    int
		challenge string // part of WWW-Authenticate
	}{
		{"list without token", "GET", "/orders", "", "", 401, `resource_metadata="https://orders.example/.well-known/oauth-protected-resource"`},
		{"create without token", "POST", "/orders", "", body, 401, "Bearer"},
		{"get without token", "GET", "/orders/" + id, "", "", 401, "Bearer"},
		{"delete without token", "DELETE", "/orders/" + id, "", "", 401, "Bearer"},
		{"report without token", "GET", "/reports/summary", "", "", 401, "Bearer"},
		{"expired token", "GET", "/orders", issuer.Token(audience, readWrite(), verifytest.Expired()), "", 401, "invalid_token"},
		{"token for another API", "GET", "/orders", issuer.Token("https://other.example", readWrite()), "", 401, "invalid_token"},
		{"token of another issuer", "GET", "/orders", verifytest.NewIssuer(t).Token(audience, readWrite()), "", 401, "invalid_token"},

		{"list with write only", "GET", "/orders", write, "", 403, `error="insufficient_scope"`},
		{"get with write only", "GET", "/orders/" + id, write, "", 403, `scope="orders:read"`},
		{"create with read only", "POST", "/orders", read, body, 403, `error="insufficient_scope"`},
		{"delete with read only", "DELETE", "/orders/" + id, read, "", 403, `scope="orders:write"`},
		{"list with read", "GET", "/orders", read, "", 200, ""},
		{"create with write", "POST", "/orders", write, body, 201, ""},

		{"report with scope, without role", "GET", "/reports/summary", issuer.Token(audience, verifytest.Scope("orders:report")), "", 403, "insufficient_scope"},
		{"report with role, without scope", "GET", "/reports/summary", issuer.Token(audience, readWrite(), admin), "", 403, `scope="orders:report"`},
		{"report with another role", "GET", "/reports/summary", issuer.Token(audience, verifytest.Scope("orders:report"), verifytest.Roles("admin")), "", 403, "insufficient_scope"},
		{"report with both", "GET", "/reports/summary", issuer.Token(audience, verifytest.Scope("orders:report"), admin), "", 200, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := api.call(test.method, test.path, test.token, test.body)
			if got.status != test.status {
				t.Errorf("status %d, want %d: %s", got.status, test.status, got.body)
			}
			if challenge := got.header.Get("WWW-Authenticate"); !strings.Contains(challenge, test.challenge) {
				t.Errorf("WWW-Authenticate %q, want %q in it", challenge, test.challenge)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	api, issuer := start(t)
	token := issuer.Token(audience, readWrite())
	long := strings.Repeat("x", maxItem+1)

	tests := []struct {
		name, method, path, body string
		headers                  []string

		status int
		detail string // part of the sentence
	}{
		{"not JSON", "POST", "/orders", `item=tea`, nil, 400, "JSON object"},
		{"empty body", "POST", "/orders", ``, []string{"Content-Type", "application/json"}, 400, "JSON object"},
		{"form", "POST", "/orders", `item=tea&quantity=1`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "application/json"},
		{"JSON array", "POST", "/orders", `[]`, nil, 400, "JSON object"},
		{"unknown field", "POST", "/orders", `{"item":"tea","quantity":1,"owner":"bob"}`, nil, 400, `unknown field "owner"`},
		{"two objects", "POST", "/orders", `{"item":"tea","quantity":1}{}`, nil, 400, "something follows"},
		{"stray brace", "POST", "/orders", `{"item":"tea","quantity":1}}`, nil, 400, "something follows"},
		{"not UTF-8", "POST", "/orders", "{\"item\":\"\xff\",\"quantity\":1}", nil, 400, "UTF-8"},
		{"body too long", "POST", "/orders", `{"item":"` + strings.Repeat("x", maxBody) + `"}`, nil, 413, "65536 bytes"},
		{"item missing", "POST", "/orders", `{"quantity":1}`, nil, 400, "item is missing"},
		{"item blank", "POST", "/orders", `{"item":"  ","quantity":1}`, nil, 400, "item is missing"},
		{"item too long", "POST", "/orders", `{"item":"` + long + `","quantity":1}`, nil, 400, "longer than 200"},
		{"item with NUL", "POST", "/orders", `{"item":"a\u0000","quantity":1}`, nil, 400, "control characters"},
		{"item a number", "POST", "/orders", `{"item":1,"quantity":1}`, nil, 400, "item can't be a number"},
		{"quantity missing", "POST", "/orders", `{"item":"tea"}`, nil, 400, "from 1 to 1000"},
		{"quantity negative", "POST", "/orders", `{"item":"tea","quantity":-1}`, nil, 400, "from 1 to 1000"},
		{"quantity too high", "POST", "/orders", `{"item":"tea","quantity":1001}`, nil, 400, "from 1 to 1000"},
		{"quantity a fraction", "POST", "/orders", `{"item":"tea","quantity":1.5}`, nil, 400, "quantity can't be"},
		{"key with a space", "POST", "/orders", `{"item":"tea","quantity":1}`, []string{"Idempotency-Key", "a b"}, 400, "Idempotency-Key"},
		{"key too long", "POST", "/orders", `{"item":"tea","quantity":1}`, []string{"Idempotency-Key", strings.Repeat("k", maxKey+1)}, 400, "Idempotency-Key"},
		{"limit zero", "GET", "/orders?limit=0", "", nil, 400, "limit must be"},
		{"limit too high", "GET", "/orders?limit=101", "", nil, 400, "limit must be"},
		{"limit a word", "GET", "/orders?limit=all", "", nil, 400, "limit must be"},
		{"after not an id", "GET", "/orders?after=1", "", nil, 400, "after must be"},
		{"no such order", "GET", "/orders/1", "", nil, 404, "no order"},
		{"no such address", "GET", "/nowhere", "", nil, 404, "nothing at this address"},
		{"method not allowed", "PUT", "/orders", "", nil, 405, "PUT"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := api.call(test.method, test.path, token, test.body, test.headers...)
			problem := decodeAs[struct {
				Status        int
				Title, Detail string
			}](t, got)
			if got.status != test.status || problem.Status != test.status || problem.Title != http.StatusText(test.status) {
				t.Errorf("status %d with %+v, want %d", got.status, problem, test.status)
			}
			if !strings.Contains(problem.Detail, test.detail) || !strings.HasSuffix(problem.Detail, ".") {
				t.Errorf("detail %q, want a sentence with %q", problem.Detail, test.detail)
			}
			if kind := got.header.Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("Content-Type %q", kind)
			}
		})
	}
	if got := decodeAs[page](t, api.call("GET", "/orders", token, "")); len(got.Items) != 0 {
		t.Errorf("a refused order was stored: %+v", got.Items)
	}
}

func TestAllowNamesTheMethods(t *testing.T) {
	api, _ := start(t)
	for path, want := range map[string]string{
		"/orders":    "GET, HEAD, POST",
		"/orders/1":  "GET, HEAD, DELETE",
		"/livez":     "GET, HEAD",
		metadataPath: "GET, HEAD",
	} {
		got := api.call("PATCH", path, "", "")
		if allow := strings.Join(got.header.Values("Allow"), ", "); got.status != 405 || allow != want {
			t.Errorf("PATCH %s: %d, Allow %q, want %q", path, got.status, allow, want)
		}
	}
}

func TestPaging(t *testing.T) {
	api, issuer := start(t)
	token := issuer.Token(audience, readWrite())
	var newestFirst []string
	for n := range 5 {
		newestFirst = append([]string{api.order(token, "tea", n+1)}, newestFirst...)
		api.order(issuer.Token(audience, readWrite(), verifytest.Subject("bob")), "coffee", 1)
	}
	var seen []string
	after := ""
	for pages := 1; ; pages++ {
		got := decodeAs[page](t, api.call("GET", "/orders?limit=2&after="+after, token, ""))
		for _, o := range got.Items {
			seen = append(seen, o.ID)
		}
		if after = got.Next; after == "" {
			if pages != 3 {
				t.Errorf("%d pages of 2 for 5 orders", pages)
			}
			break
		}
		// The order a page ended with may go before the next page is asked for.
		if got := api.call("DELETE", "/orders/"+after, token, ""); got.status != http.StatusNoContent {
			t.Fatalf("delete: %d", got.status)
		}
	}
	if strings.Join(seen, " ") != strings.Join(newestFirst, " ") {
		t.Errorf("paged through\n%v, want\n%v", seen, newestFirst)
	}
	if got := decodeAs[page](t, api.call("GET", "/orders?limit=3", token, "")); len(got.Items) != 3 || got.Next != "" {
		t.Errorf("a page that ends exactly with the list: %d items, next %q", len(got.Items), got.Next)
	}
}

func TestIdempotencyKey(t *testing.T) {
	api, issuer := start(t)
	alice := issuer.Token(audience, readWrite())
	const body, key = `{"item":"tea","quantity":1}`, "Idempotency-Key"

	first := api.call("POST", "/orders", alice, body, key, "k1")
	if first.status != http.StatusCreated {
		t.Fatalf("first: %d %s", first.status, first.body)
	}
	at := first.header.Get("Location")
	again := api.call("POST", "/orders", alice, body, key, "k1")
	if again.status != http.StatusCreated || again.body != first.body || again.header.Get("Location") != at {
		t.Errorf("again: %d %s, want the first answer", again.status, again.body)
	}
	if got := api.call("POST", "/orders", alice, `{"item":"tea","quantity":2}`, key, "k1"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("another order with the key: %d %s", got.status, got.body)
	}
	bob := issuer.Token(audience, readWrite(), verifytest.Subject("bob"))
	if got := api.call("POST", "/orders", bob, body, key, "k1"); got.status != http.StatusCreated || got.body == first.body {
		t.Errorf("the same key of another owner: %d %s", got.status, got.body)
	}
	if got := api.call("POST", "/orders", alice, body, key, "k2"); got.header.Get("Location") == at {
		t.Error("another key made no order")
	}

	// A late repeat must not bring back what was deleted.
	api.call("DELETE", at, alice, "")
	if got := api.call("POST", "/orders", alice, body, key, "k1"); got.body != first.body {
		t.Errorf("again after delete: %d %s", got.status, got.body)
	}
	if got := api.call("GET", at, alice, ""); got.status != http.StatusNotFound {
		t.Errorf("the repeat brought the order back: %d", got.status)
	}
}

func TestIdempotencyKeyRace(t *testing.T) {
	api, issuer := start(t)
	token := issuer.Token(audience, readWrite())
	answers := make([]reply, 32)
	var group sync.WaitGroup
	for n := range answers {
		group.Go(func() {
			answers[n] = api.call("POST", "/orders", token, `{"item":"tea","quantity":1}`, "Idempotency-Key", "race")
		})
	}
	group.Wait()
	for _, got := range answers {
		if got.status != http.StatusCreated || got.body != answers[0].body {
			t.Errorf("%d %s, want the same answer for all: %s", got.status, got.body, answers[0].body)
		}
	}
	if got := decodeAs[page](t, api.call("GET", "/orders", token, "")); len(got.Items) != 1 {
		t.Errorf("%d orders, want 1", len(got.Items))
	}
}

func TestIdempotencyKeyIsForgottenAfterADay(t *testing.T) {
	s, err := openStore(t.Context(), filepath.Join(t.TempDir(), "orders.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	by, now := owner{"https://a.example", "alice"}, time.Now()
	ids := map[string]bool{}
	for _, at := range []time.Time{now, now.Add(keyLifetime), now.Add(keyLifetime + time.Second)} {
		made, err := s.create(t.Context(), by, "key", "tea", 1, at)
		if err != nil {
			t.Fatal(err)
		}
		ids[made.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("%d orders, want one for the first day and one after it", len(ids))
	}
}

func TestSummaryCoversAllOwners(t *testing.T) {
	api, issuer := start(t)
	admin := issuer.Token(audience, verifytest.Scope("orders:report"), verifytest.Roles("orders-admin"))
	if got := decodeAs[summary](t, api.call("GET", "/reports/summary", admin, "")); got != (summary{}) {
		t.Errorf("summary of nothing: %+v", got)
	}
	for subject, quantity := range map[string]int{"alice": 2, "bob": 3} {
		token := issuer.Token(audience, readWrite(), verifytest.Subject(subject))
		api.order(token, "tea", quantity)
		api.order(token, "coffee", 1)
	}
	if got := decodeAs[summary](t, api.call("GET", "/reports/summary", admin, "")); got != (summary{Owners: 2, Orders: 4, Quantity: 7}) {
		t.Errorf("summary: %+v", got)
	}
}

// The promise of offline verification: the provider may be down, and nobody who
// has a token notices.
func TestKeepsAnsweringWithTheProviderStopped(t *testing.T) {
	api, issuer := start(t)
	seen := issuer.Token(audience, readWrite())
	fresh := issuer.Token(audience, readWrite(), verifytest.Subject("bob"))
	id := api.order(seen, "tea", 1)

	issuer.Stop()

	for range 3 {
		if got := api.call("GET", "/orders/"+id, seen, ""); got.status != http.StatusOK {
			t.Errorf("token seen before: %d %s", got.status, got.body)
		}
		api.order(fresh, "coffee", 1)
	}
	if got := decodeAs[page](t, api.call("GET", "/orders", fresh, "")); len(got.Items) != 3 {
		t.Errorf("token not seen before: %+v", got)
	}
	if got := api.call("GET", "/orders", issuer.Token("https://other.example", readWrite()), ""); got.status != http.StatusUnauthorized {
		t.Errorf("token for another API: %d", got.status)
	}
	if got := api.call("GET", "/readyz", "", ""); got.status != http.StatusOK {
		t.Errorf("readyz: %d %s", got.status, got.body)
	}
}

func TestProviderNeverSeen(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	issuer.Stop()
	api := startWith(t, Config{Issuer: issuer.URL, Audience: audience})
	if got := api.call("GET", "/readyz", "", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d %s", got.status, got.body)
	}
	if got := api.call("GET", "/livez", "", ""); got.status != http.StatusOK {
		t.Errorf("livez: %d %s", got.status, got.body)
	}
	if got := api.call("GET", "/orders", issuer.Token(audience, readWrite()), ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("orders: %d %s", got.status, got.body)
	}
}

const metadataPath = "/.well-known/oauth-protected-resource"

func TestResourceMetadata(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	for resource, path := range map[string]string{
		"https://orders.example":     metadataPath,
		"https://orders.example/":    metadataPath,
		"https://shop.example/v1/or": metadataPath + "/v1/or",
	} {
		api := startWith(t, Config{Issuer: issuer.URL, Audience: resource})
		got := api.call("GET", path, "", "")
		if got.status != http.StatusOK {
			t.Errorf("%s: %d %s", resource, got.status, got.body)
			continue
		}
		document := decodeAs[verify.Metadata](t, got)
		if document.Resource != resource || len(document.AuthorizationServers) != 1 || document.AuthorizationServers[0] != issuer.URL {
			t.Errorf("%s: %+v", resource, document)
		}
		// The route follows the rule that verify states.
		if want := verify.MetadataPath(resource); path != want {
			t.Errorf("%s: at %s, want %s", resource, path, want)
		}
	}
}

func TestConfigurationFaults(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "orders.db")
	for name, config := range map[string]Config{
		"no issuer":         {Audience: audience, Database: file},
		"no audience":       {Issuer: "http://127.0.0.1:1", Database: file},
		"audience no URL":   {Issuer: "http://127.0.0.1:1", Audience: "orders", Database: file},
		"audience in clear": {Issuer: "http://127.0.0.1:1", Audience: "http://orders.example", Database: file},
		"folder missing":    {Issuer: "http://127.0.0.1:1", Audience: audience, Database: filepath.Join(directory, "no", "orders.db")},
	} {
		if _, err := New(t.Context(), config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Orders survive a restart, and only this user may read their file.
func TestDatabaseFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it's 100%?.db")
	by := owner{"https://a.example", "alice"}
	var made order
	for run := range 2 {
		s, err := openStore(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			made, err = s.create(t.Context(), by, "", "tea", 1, time.Now())
		} else {
			_, err = s.get(t.Context(), by, made.ID)
		}
		if err = errors.Join(err, s.close()); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

// A browser's cookies change nothing, and none is set.
func TestNoCookies(t *testing.T) {
	api, issuer := start(t)
	token := issuer.Token(audience, readWrite())
	id := api.order(token, "tea", 1)
	for _, path := range []string{"/orders", "/orders/" + id, "/reports/summary", metadataPath, "/livez", "/readyz", "/nowhere"} {
		for _, bearer := range []string{"", token} {
			without := api.call("GET", path, bearer, "")
			with := api.call("GET", path, bearer, "", "Cookie", "session=1; __Host-session=2; access_token="+token)
			if with.status != without.status || with.body != without.body {
				t.Errorf("GET %s: %d with cookies, %d without", path, with.status, without.status)
			}
			for _, got := range []reply{with, without} {
				if set := got.header.Values("Set-Cookie"); set != nil {
					t.Errorf("GET %s sets %q", path, set)
				}
			}
		}
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(sources, filepath.Join("..", "main.go")) {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") && bytes.Contains(bytes.ToLower(source), []byte("cookie")) {
			t.Errorf("%s speaks of cookies", name)
		}
	}
}

func TestLogHoldsNothingSecret(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	var log bytes.Buffer
	config := Config{
		Issuer: issuer.URL, Audience: audience, Database: filepath.Join(t.TempDir(), "orders.db"),
		Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	app, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	token := issuer.Token(audience, readWrite())
	for _, sent := range []string{token, token + "x"} {
		request := httptest.NewRequestWithContext(t.Context(), "GET", "/orders?access_token=in-the-query", nil)
		request.Header.Set("Authorization", "Bearer "+sent)
		app.Handler().ServeHTTP(httptest.NewRecorder(), request)
	}
	if err := app.Close(); err != nil { // ends all writing to log
		t.Fatal(err)
	}
	text := log.String()
	if !strings.Contains(text, `"route":"/orders"`) {
		t.Errorf("no line for the request: %s", text)
	}
	for _, secret := range strings.Split(token, ".") {
		if strings.Contains(text, secret) {
			t.Errorf("the log holds part of a token: %s", text)
		}
	}
	if strings.Contains(text, "in-the-query") {
		t.Errorf("the log holds the query: %s", text)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	app := &App{log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
	app.record(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })).ServeHTTP(w, r)
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A revoked token is refused though it was accepted before.
func TestRevoked(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	api := startWith(t, Config{Issuer: issuer.URL, Audience: audience})
	token := issuer.Token(audience, readWrite(), verifytest.Claim("sid", "s1"))
	api.order(token, "tea", 1)
	if got := decodeAs[map[string]string](t, api.call("GET", "/readyz", "", "")); got["revocations"] != verify.RevocationFresh {
		t.Errorf("readyz: %v", got)
	}
	issuer.Revoke("sid", "s1")
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		got := api.call("GET", "/orders", token, "")
		if got.status == http.StatusUnauthorized && strings.Contains(got.header.Get("WWW-Authenticate"), "revoked") {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
}

// While revocations cannot be followed orders are listed, changed with a fresh
// token only, and not summed up. A provider without a feed is the same for ever.
func TestRevocationsUnknown(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	var log safeBuffer
	api := startWith(t, Config{Issuer: issuer.URL, Audience: audience, HTTPClient: &http.Client{Transport: withoutFeed{}},
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), "revocations are not followed") {
		t.Errorf("the log does not say it: %s", log.String())
	}
	if got := decodeAs[map[string]string](t, api.call("GET", "/readyz", "", "")); got["revocations"] != verify.RevocationNone {
		t.Errorf("readyz: %v", got)
	}
	claims := []verifytest.Option{verifytest.Scope("orders:read", "orders:write", "orders:report"), verifytest.Roles("orders-admin")}
	young := issuer.Token(audience, claims...)
	old := issuer.Token(audience, append(claims, verifytest.Claim("iat", time.Now().Add(-2*time.Minute).Unix()))...)
	id := api.order(young, "tea", 1)
	for _, r := range []struct {
		method, path, body string
		young, old         int
	}{
		{"GET", "/orders", "", 200, 200},
		{"GET", "/orders/" + id, "", 200, 200},
		{"POST", "/orders", `{"item":"tea","quantity":1}`, 201, 401},
		{"DELETE", "/orders/" + id, "", 204, 401},
		{"GET", "/reports/summary", "", 503, 503},
	} {
		if got := api.call(r.method, r.path, old, r.body); got.status != r.old {
			t.Errorf("%s %s with an old token: %d %s", r.method, r.path, got.status, got.body)
		}
		if got := api.call(r.method, r.path, young, r.body); got.status != r.young {
			t.Errorf("%s %s with a young token: %d %s", r.method, r.path, got.status, got.body)
		}
	}
}

// withoutFeed hides the feed that the issuer's metadata names.
type withoutFeed struct{}

func (withoutFeed) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.Contains(r.URL.Path, ".well-known") {
		return res, err
	}
	defer res.Body.Close()
	metadata := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&metadata); err != nil {
		return nil, err
	}
	delete(metadata, "revocation_feed_endpoint")
	text, err := json.Marshal(metadata)
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return res, err
}

// safeBuffer may be written to and read at once.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

package verify_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/signet-oidc/signet/verify"
)

// A protected API is ten lines.
func Example() {
	const resource = "https://orders.example"
	v, err := verify.New(context.Background(), "https://id.example", resource)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /orders", verify.RequireScope("orders:read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "orders of %s\n", verify.ClaimsFrom(r.Context()).Subject())
	})))
	_ = http.Server{Addr: "127.0.0.1:8081", Handler: v.Middleware(mux)}
}

// What a client meets on its way to an order.
func ExampleVerifier_Middleware() {
	key, v, end := exampleIssuer()
	defer end()

	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "orders of %s\n", verify.ClaimsFrom(r.Context()).Subject())
	})
	api := v.Middleware(verify.RequireScope("orders:read")(orders))

	for _, token := range []string{"", key.token(set("scope", "orders:read")), key.token(set("scope", "profile"))} {
		r := httptest.NewRequest("GET", "/orders", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code)
		fmt.Println(w.Header().Get("WWW-Authenticate"))
		fmt.Print(w.Body)
	}
	// Output:
	// 401
	// Bearer
	// 200
	//
	// orders of alice
	// 403
	// Bearer error="insufficient_scope", error_description="the access token lacks a scope", scope="orders:read"
	// {"error":"insufficient_scope","error_description":"the access token lacks a scope"}
}

// A report for clerks only, and a payment that wants a fresh strong sign-in.
func ExampleRequireRole() {
	_, v, end := exampleIssuer()
	defer end()

	report := verify.RequireRole("clerk", "orders:report")(http.NotFoundHandler())
	pay := verify.RequireACR("mfa")(verify.RequireMaxAge(5 * time.Minute)(http.NotFoundHandler()))

	mux := http.NewServeMux()
	mux.Handle("GET /report", v.Middleware(report))
	mux.Handle("POST /pay", v.Middleware(pay))
	mux.Handle("GET "+verify.MetadataPath(audience), verify.ResourceMetadata(verify.Metadata{
		Resource:             audience,
		AuthorizationServers: []string{issuer},
		ScopesSupported:      []string{"orders:read", "orders:report"},
	}))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/oauth-protected-resource", nil))
	fmt.Println(w.Body)
	// Output:
	// {"resource":"https://orders.example","authorization_servers":["https://id.example"],"scopes_supported":["orders:read","orders:report"],"bearer_methods_supported":["header"]}
}

// exampleIssuer stands in for a running Signet; a test would use verifytest.
func exampleIssuer() (signingKey, *verify.Verifier, func()) {
	key := newKey("k1", "ES256")
	ctx, cancel := context.WithCancel(context.Background())
	v, err := verify.New(ctx, issuer, audience,
		verify.WithHTTPClient(newProvider(key).client()),
		verify.WithNow(func() time.Time { return epoch }),
		verify.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		panic(err)
	}
	return key, v, cancel
}

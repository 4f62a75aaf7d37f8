// Command zitadel-oidc is a web app on the relying party of
// github.com/zitadel/oidc and its handlers, given the issuer's URL.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/client/rp"
	httphelper "github.com/zitadel/oidc/v3/pkg/http"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "zitadel-oidc:", err)
		os.Exit(1)
	}
}

// app keeps people's tokens under what their cookies say.
type app struct {
	rp.RelyingParty
	cookies *httphelper.CookieHandler
	url     string

	mu       sync.Mutex
	sessions map[string]*oidc.Tokens[*oidc.IDTokenClaims]
}

// nonceOf is the key of a request's nonce in its context.
type nonceOf struct{}

func run(ctx context.Context) error {
	issuer := flag.String("issuer", "", "the issuer's URL")
	id := flag.String("client-id", "", "the app's client_id")
	listen := flag.String("listen", "", "address to serve on")
	basic := flag.Bool("basic", false, "authenticate by client_secret_basic, which it does not by itself when it refreshes")
	flag.Parse()
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	cookies := httphelper.NewCookieHandler(key[:], key[:], httphelper.WithUnsecure())
	a := &app{cookies: cookies, url: "http://" + *listen, sessions: make(map[string]*oidc.Tokens[*oidc.IDTokenClaims])}
	var err error
	options := []rp.Option{
		rp.WithPKCEFromDiscovery(cookies), rp.WithSigningAlgsFromDiscovery(),
		rp.WithVerifierOpts(rp.WithNonce(func(ctx context.Context) string {
			nonce, _ := ctx.Value(nonceOf{}).(string)
			return nonce
		})),
	}
	if *basic {
		options = append(options, rp.WithAuthStyle(oauth2.AuthStyleInHeader))
	}
	a.RelyingParty, err = rp.NewRelyingPartyOIDC(ctx, *issuer, *id, os.Getenv("CLIENT_SECRET"), a.url+"/callback",
		[]string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail}, options...)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("GET /refresh", a.refresh)
	mux.HandleFunc("GET /logout", a.logout)
	mux.HandleFunc("GET /signed-out", func(w http.ResponseWriter, _ *http.Request) { tell(w, map[string]any{"signed_out": true}) })
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return (&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}).Serve(l)
}

// home tells who is signed in, as long as the issuer says so too.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	if had := a.session(r); had != nil {
		about, err := rp.Userinfo[*oidc.UserInfo](r.Context(), had.AccessToken, had.Type(), had.IDTokenClaims.Subject, a.RelyingParty)
		if err == nil {
			tell(w, map[string]any{"sub": about.Subject, "email": about.Email, "alg": had.IDTokenClaims.SignatureAlg})
			return
		}
	}
	nonce := rand.Text()
	if err := a.cookies.SetCookie(w, "nonce", nonce); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	rp.AuthURLHandler(rand.Text, a.RelyingParty, rp.WithURLParam("nonce", nonce))(w, r)
}

func (a *app) callback(w http.ResponseWriter, r *http.Request) {
	nonce, err := a.cookies.CheckCookie(r, "nonce")
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	a.cookies.DeleteCookie(w, "nonce")
	signedIn := func(w http.ResponseWriter, r *http.Request, tokens *oidc.Tokens[*oidc.IDTokenClaims], _ string, _ rp.RelyingParty, _ *oidc.UserInfo) {
		id := rand.Text()
		a.keep(id, tokens)
		if err := a.cookies.SetCookie(w, "session", id); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusFound)
	}
	rp.CodeExchangeHandler(rp.UserinfoCallback(signedIn), a.RelyingParty)(w, r.WithContext(context.WithValue(r.Context(), nonceOf{}, nonce)))
}

func (a *app) keep(id string, tokens *oidc.Tokens[*oidc.IDTokenClaims]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[id] = tokens
}

// session returns the tokens of who asks, nil for a stranger.
func (a *app) session(r *http.Request) *oidc.Tokens[*oidc.IDTokenClaims] {
	id, err := a.cookies.CheckCookie(r, "session")
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions[id]
}

// refresh uses the refresh token, then the same again.
func (a *app) refresh(w http.ResponseWriter, r *http.Request) {
	had := a.session(r)
	if had == nil {
		http.Error(w, "nobody is signed in", http.StatusUnauthorized)
		return
	}
	next, err := rp.RefreshTokens[*oidc.IDTokenClaims](r.Context(), a.RelyingParty, had.RefreshToken, "", "")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	again := "accepted"
	var refused *oidc.Error
	if _, err := rp.RefreshTokens[*oidc.IDTokenClaims](r.Context(), a.RelyingParty, had.RefreshToken, "", ""); errors.As(err, &refused) {
		again = string(refused.ErrorType)
	} else if err != nil {
		again = err.Error()
	}
	tell(w, map[string]any{"rotated": next.RefreshToken != had.RefreshToken && next.AccessToken != had.AccessToken, "again": again})
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	had := a.session(r)
	if had == nil {
		http.Error(w, "nobody is signed in", http.StatusUnauthorized)
		return
	}
	a.cookies.DeleteCookie(w, "session")
	to, err := rp.EndSession(r.Context(), a.RelyingParty, had.IDToken, a.url+"/signed-out", "out", "", nil)
	if err == nil && to == nil {
		err = errors.New("the issuer sends the browser nowhere")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	http.Redirect(w, r, to.String(), http.StatusFound)
}

func tell(w http.ResponseWriter, told map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(told) // who asked has gone
}

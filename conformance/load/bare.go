package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// bareClient is the client whose tokens a bare server makes.
const bareClient = "bare"

// bareDocument is how many bytes its documents have: about those of a provider.
const bareDocument = 1800

// serveBare is the yardstick: net/http with nothing behind it but a document
// made beforehand and, for a token, one ES256 signature. What a provider does
// beyond that is its own cost. It serves until ctx ends.
func serveBare(ctx context.Context, address string, stdout io.Writer) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	handler, err := bare("http://" + l.Addr().String())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: answerTimeout}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	fmt.Fprintf(stdout, "a bare server at http://%s, its client %s with any secret\n", l.Addr(), bareClient)
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func bare(issuer string) (http.Handler, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	document := func(members map[string]any) []byte {
		members["padding"] = strings.Repeat("x", bareDocument)
		b, _ := json.Marshal(members) // strings always marshal
		return b
	}
	metadata := document(map[string]any{"issuer": issuer, "token_endpoint": issuer + "/token", "jwks_uri": issuer + "/jwks"})
	keys := document(map[string]any{"keys": []any{map[string]string{"kty": "EC"}}})
	serve := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body) // the connection is gone when this fails
		}
	}
	claims := fmt.Sprintf(`{"iss":%q,"client_id":%q,"exp":%d}`, issuer, bareClient, time.Now().AddDate(1, 0, 0).Unix())
	input := "eyJhbGciOiJFUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", serve(metadata))
	mux.HandleFunc("GET /jwks", serve(keys))
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		digest := sha256.Sum256([]byte(input))
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"%s.%s","token_type":"Bearer"}`, input, base64.RawURLEncoding.EncodeToString(signature))
	})
	return mux, nil
}

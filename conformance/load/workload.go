package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A workload is a kind of work for the server. Workloads of several steps, like
// a login, are one operation too.
type workload struct {
	name, about string
	needs       needs
	// prepare does what need not be measured, once, and returns what makes the
	// operation of each worker.
	prepare func(ctx context.Context, t *target, workers int) (func(worker int) operation, error)
}

// needs are the credentials that a workload cannot do without.
type needs int

const (
	nothing needs = iota
	aClient
	aPerson // and a client
)

// An operation does the work once, over the worker's connection. Closely says
// that the answer is to be read whole, and not only glanced at.
type operation func(c *conn, now time.Time, closely bool) error

func workloads() []workload {
	return []workload{
		{"client-credentials", "a token for the client itself", aClient, clientCredentials},
		{"introspection", "is a token active, over 64 tokens in turn", aClient, introspection},
		{"login", "a person signs in by form, and the app exchanges the code", aPerson, login},
		{"code", "authorization of somebody signed in and asked before, and the code's exchange", aPerson, codeFlow},
		{"refresh", "a refresh token for its successor, a chain for each worker", aPerson, refresh},
		{"userinfo", "what an access token releases about its person", aPerson, userInfo},
		{"discovery", "the OpenID configuration", nothing, discovery},
		{"jwks", "the key set", nothing, keySet},
	}
}

func findWorkload(name string) (workload, bool) {
	all := workloads()
	i := slices.IndexFunc(all, func(w workload) bool { return w.name == name })
	if i < 0 {
		return workload{}, false
	}
	return all[i], true
}

func workloadNames() string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

// ask makes an operation of requests that are sent in turn. Each answer must
// have status 200 and hold the mark; some are judged closely.
func ask(requests [][]byte, mark string, judge func(body []byte, now time.Time) error) func(worker int) operation {
	sign := []byte(mark)
	return func(worker int) operation {
		next := worker // so that workers are not in step
		return func(c *conn, now time.Time, closely bool) error {
			request := requests[next%len(requests)]
			next++
			status, body, err := c.do(request, now)
			switch {
			case err != nil:
				return err
			case status != http.StatusOK:
				return &failure{fmt.Sprintf("status %d", status), errors.New("want 200")}
			case !bytes.Contains(body, sign):
				return &failure{"wrong answer", fmt.Errorf("no %s in it", mark)}
			}
			if closely {
				if err := judge(body, now); err != nil {
					return &failure{"wrong answer", err}
				}
			}
			return nil
		}
	}
}

func clientCredentials(_ context.Context, t *target, _ int) (func(int) operation, error) {
	request, err := t.tokenRequest()
	if err != nil {
		return nil, err
	}
	return ask([][]byte{request}, `"access_token"`, func(body []byte, now time.Time) error {
		var answer struct {
			AccessToken string `json:"access_token"`
			TokenType   string `json:"token_type"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if !strings.EqualFold(answer.TokenType, "Bearer") {
			return errors.New("not a bearer token")
		}
		return t.checkToken(answer.AccessToken, now)
	}), nil
}

// checkToken looks whether a JWT is this issuer's, for the client, and not expired.
func (t *target) checkToken(token string, now time.Time) error {
	payload, err := segment(token, 1)
	if err != nil {
		return err
	}
	var claims struct {
		Issuer   string `json:"iss"`
		ClientID string `json:"client_id"`
		Expiry   int64  `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	if claims.Issuer != t.issuer || claims.ClientID != t.clientID || claims.Expiry <= now.Unix() {
		return errors.New("a token of another issuer or client, or expired")
	}
	return nil
}

// segment returns the header (0) or the payload (1) of a JWT.
func segment(token string, i int) ([]byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a JWT")
	}
	return base64.RawURLEncoding.DecodeString(parts[i])
}

func introspection(ctx context.Context, t *target, _ int) (func(int) operation, error) {
	path, err := t.path("introspection_endpoint")
	if err != nil {
		return nil, err
	}
	tokens, err := t.tokens(ctx, 64)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, len(tokens))
	for i, tok := range tokens {
		requests[i] = t.post(path, url.Values{"token": {tok}})
	}
	return ask(requests, `"active":true`, func(body []byte, _ time.Time) error {
		var answer struct {
			Active   bool   `json:"active"`
			ClientID string `json:"client_id"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if !answer.Active || answer.ClientID != t.clientID {
			return errors.New("not the client's active token")
		}
		return nil
	}), nil
}

func discovery(_ context.Context, t *target, _ int) (func(int) operation, error) {
	return ask([][]byte{t.get(t.discovery)}, `"issuer"`, func(body []byte, _ time.Time) error {
		var answer struct {
			Issuer string `json:"issuer"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if answer.Issuer != t.issuer {
			return fmt.Errorf("issuer %q", answer.Issuer)
		}
		return nil
	}), nil
}

func keySet(_ context.Context, t *target, _ int) (func(int) operation, error) {
	path, err := t.path("jwks_uri")
	if err != nil {
		return nil, err
	}
	return ask([][]byte{t.get(path)}, `"keys"`, func(body []byte, _ time.Time) error {
		var answer struct {
			Keys []map[string]any `json:"keys"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if len(answer.Keys) == 0 {
			return errors.New("no key")
		}
		return nil
	}), nil
}

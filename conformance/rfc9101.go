package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// RFC 9101: authorization requests in a JWT that the client signs.
func rfc9101Checks() []Check {
	const spec = "RFC 9101"
	who := signIn(metadataFlag("request_parameter_supported", true), keyApp())
	// refused is a request object that is good but for one thing.
	refused := func(id, section, name string, alter func(e *Env, a *assertion) error) Check {
		return Check{id, spec, section, name, who, func(ctx context.Context, e *Env) error {
			f, err := e.sendObject(ctx, alter)
			if err != nil {
				return err
			}
			return f.wantObjectRefused()
		}}
	}
	claim := func(name string, value any) func(*Env, *assertion) error {
		return func(_ *Env, a *assertion) error { a.claims[name] = value; return nil }
	}
	return []Check{
		{"rfc9101-accepted", spec, "§5", "a request in a signed object brings a code", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.sendObject(ctx, nil)
				if err != nil {
					return err
				}
				return f.wantCode()
			}},
		{"rfc9101-inside", spec, "§6.3", "of parameters, those in the object count and no others", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.sendObject(ctx, func(_ *Env, a *assertion) error { delete(a.claims, "state"); return nil },
					set("state", "outside"), set("nonce", "outside"))
				if err != nil {
					return err
				}
				if err := f.wantCode(); err != nil {
					return err
				}
				if f.answer.Has("state") {
					return unexpected("state", f.answer.Get("state"), plain("none, as the object has none"))
				}
				return nil
			}},
		{"rfc9101-no-client-id", spec, "§5", "client_id is needed beside the object", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.sendObject(ctx, nil, unset("client_id"))
				if err != nil {
					return err
				}
				return f.wantNoCode()
			}},
		{"rfc9101-both", spec, "§5", "request and request_uri in one request bring no code", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.sendObject(ctx, nil, set("request_uri", "https://app.example/request"))
				if err != nil {
					return err
				}
				return f.wantNoCode()
			}},
		refused("rfc9101-client-id", "§5", "client_id in the object must be that beside it", claim("client_id", "another-client")),
		refused("rfc9101-nested", "§4", "an object that holds another is refused", claim("request", "e30.e30.")),
		refused("rfc9101-nested-uri", "§4", "an object that refers to another is refused", claim("request_uri", "https://app.example/request")),
		refused("rfc9101-aud", "§4", "an object for another issuer is refused", claim("aud", "https://other.example")),
		refused("rfc9101-iss", "§4", "an object of another client is refused", claim("iss", "another-client")),
		refused("rfc9101-expired", "§6.2", "an object that has expired is refused", func(e *Env, a *assertion) error {
			a.claims["iat"], a.claims["nbf"] = e.Now().Add(-2*time.Hour).Unix(), e.Now().Add(-2*time.Hour).Unix()
			a.claims["exp"] = e.Now().Add(-time.Hour).Unix()
			return nil
		}),
		refused("rfc9101-not-before", "§6.2", "an object that is not valid yet is refused", func(e *Env, a *assertion) error {
			a.claims["nbf"], a.claims["exp"] = e.Now().Add(time.Hour).Unix(), e.Now().Add(2*time.Hour).Unix()
			return nil
		}),
		refused("rfc9101-alg-none", "§10.2", "an object that nobody signed is refused", func(_ *Env, a *assertion) error {
			a.key, a.header["alg"] = nil, "none"
			return nil
		}),
		refused("rfc9101-alg-hs256", "§6.2", "an object signed by HMAC with the public key is refused", func(e *Env, a *assertion) error {
			der, err := x509.MarshalPKIXPublicKey(e.KeyClient.key.Public())
			if err != nil {
				return fmt.Errorf("public key: %w", err)
			}
			a.key, a.alg = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), jose.HS256
			return nil
		}),
		refused("rfc9101-wrong-key", "§6.2", "an object signed with another key is refused", func(_ *Env, a *assertion) error {
			return a.signWithAnotherKey()
		}),
		refused("rfc9101-embedded-key", "§6.2", "an object that brings its own key is refused", func(_ *Env, a *assertion) error {
			if err := a.signWithAnotherKey(); err != nil {
				return err
			}
			a.header["jwk"] = jose.JSONWebKey{Key: a.key.(*ecdsa.PrivateKey).Public()}
			return nil
		}),
		{"rfc9101-required", spec, "§10.5", "a client registered to sign its requests cannot do without", with(signIn(), registration()),
			registering(func(ctx context.Context, e *Env, r *registered) error {
				if r.member["require_signed_request_object"] != true {
					return notOffered("the issuer does not let clients register require_signed_request_object")
				}
				f, err := e.flowFor(ctx, r.app(e))
				if err != nil {
					return err
				}
				return f.wantNoCode()
			}, member("require_signed_request_object", true), withKeys)},
	}
}

// keyApp needs the client with a key to have people sign in, too.
func keyApp() Need {
	return Need{"--private-key-client-id with --private-key-redirect-uri", func(e *Env) bool { return e.KeyClient != nil && e.KeyRedirectURI != "" }}
}

// KeyApp is the client with a key, as one that people sign in to.
func (e *Env) KeyApp() App { return App{Credentials{ID: e.KeyClient.ID}, e.KeyRedirectURI} }

// requestObject is a good one with all that a flow asks for, for the check to spoil.
func (e *Env) requestObject(f *flow) *assertion {
	a := e.assertion()
	delete(a.claims, "sub") // §10.8: it would look like a client assertion
	a.header["typ"] = "oauth-authz-req+jwt"
	a.claims["nbf"] = a.claims["iat"]
	for name := range f.asked {
		a.claims[name] = f.asked.Get(name)
	}
	return a
}

// sendObject has the client with a key send a browser with a request object.
// What OpenID Connect Core §6.1 wants outside is there too, and with it where
// an error goes that keeps the object from being read.
func (e *Env) sendObject(ctx context.Context, alter func(*Env, *assertion) error, changes ...change) (*flow, error) {
	b, err := e.signedIn(ctx)
	if err != nil {
		return nil, err
	}
	f := b.prepare(e.KeyApp())
	a := e.requestObject(f)
	if alter != nil {
		if err := alter(e, a); err != nil {
			return nil, err
		}
	}
	object, err := a.sign()
	if err != nil {
		return nil, fmt.Errorf("request object: %w", err)
	}
	q := url.Values{"request": {object}}
	for _, name := range []string{"client_id", "response_type", "scope", "redirect_uri", "state"} {
		q[name] = f.asked[name]
	}
	q = maps.Clone(q)
	for _, c := range changes {
		c(q)
	}
	return f, f.openWith(ctx, q)
}

// wantObjectRefused checks that the app was told of the object, or nobody but
// the person was: what cannot be trusted need not say where an answer goes.
func (f *flow) wantObjectRefused() error {
	if f.left == nil && f.answer == nil && f.last().answer.Status >= http.StatusBadRequest {
		return nil
	}
	return f.wantRefused("invalid_request_object")
}

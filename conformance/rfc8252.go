package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// RFC 8252: apps on a person's device.
func rfc8252Checks() []Check {
	const spec = "RFC 8252"
	who := signIn(nativeApp())
	return []Check{
		{"rfc8252-any-port", spec, "§7.3", "a native app may listen on any port of the loopback address", who,
			func(ctx context.Context, e *Env) error {
				for range 2 {
					f, err := e.flowFor(ctx, e.native())
					if err != nil {
						return err
					}
					if _, err := f.tokens(ctx); err != nil {
						return err
					}
				}
				return nil
			}},
		{"rfc8252-redirects", spec, "§7", "a native app may register a scheme of its own, an https address or the loopback address", []Need{registration()},
			func(ctx context.Context, e *Env) error {
				for _, uri := range []string{"com.example.app:/cb", "https://app.example/cb", "http://127.0.0.1/cb"} {
					a, err := e.attempt(ctx, member("redirect_uris", []string{uri}), member("application_type", "native"), member("token_endpoint_auth_method", "none"))
					if err != nil {
						return err
					}
					if a.Status != http.StatusCreated {
						return unexpected("registration of "+uri, a, plain("status 201"))
					}
				}
				return nil
			}},
		{"rfc8252-loopback-only", spec, "§8.4", "only the port may differ from what is registered", who,
			func(ctx context.Context, e *Env) error {
				registered, err := url.Parse(e.Native.RedirectURI)
				if err != nil {
					return fmt.Errorf("--native-redirect-uri: %w", err)
				}
				app, path := e.native(), registered.EscapedPath()
				for _, uri := range []string{
					"http://" + registered.Hostname() + ":5555" + path + "/more",
					"http://" + registered.Hostname() + ":5555" + path + "?more=1",
					"http://evil.example:5555" + path,
					"http://" + registered.Hostname() + ":5555@evil.example" + path,
					"http://" + registered.Hostname() + ".evil.example:5555" + path,
					"https://" + registered.Hostname() + ":5555" + path,
				} {
					f, err := e.flowFor(ctx, app, set("redirect_uri", uri))
					if err != nil {
						return err
					}
					if err := f.wantPage(); err != nil {
						return fmt.Errorf("redirect_uri %s: %w", uri, err)
					}
				}
				return nil
			}},
		{"rfc8252-consent", spec, "§8.6", "a native app, which anybody can pretend to be, gets nothing without the person", who,
			func(ctx context.Context, e *Env) error {
				for range 2 { // consent given before does not count
					f, err := e.flowFor(ctx, e.native())
					if err != nil {
						return err
					}
					if err := f.wantCode(); err != nil {
						return err
					}
					if len(f.shown) == 0 {
						return unexpected("authorization", plain("a code without a question"), plain("a page"))
					}
				}
				return nil
			}},
	}
}

package proof

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// inJavaScript starts jose.mjs, a verifier of tokens for the APIs with the npm
// package jose, and returns a function that asks it about a token.
func (d *deployment) inJavaScript(apis ...string) func(token string) error {
	d.t.Helper()
	// Whatever max-age says, jose keeps keys for ten minutes, and asks anew about an
	// unknown one 30 s after it last did at the soonest. max-age is 15 minutes by
	// rights and cachedFor here: jose's times are shortened alike, so that they are
	// the share of it that they are in a real deployment.
	const maxAge = 15 * time.Minute
	config, err := json.Marshal(map[string]any{
		"issuer": d.issuer, "audience": apis, "jwks": d.issuer + "/jwks",
		"cacheMaxAge":      (10 * time.Minute / (maxAge / cachedFor)).Milliseconds(),
		"cooldownDuration": (30 * time.Second / (maxAge / cachedFor)).Milliseconds(),
	})
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command("node", "jose.mjs", string(config))
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatalf("%v; .ci/deps installs it", err)
	}
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	answers := bufio.NewReader(out)
	if line, err := answers.ReadString('\n'); err != nil || line != "ready\n" {
		_ = in.Close()
		_ = cmd.Wait() // what it said tells more
		d.t.Fatalf("jose.mjs: %q, %v; .ci/deps installs what it needs\n%s", line, err, &said)
	}
	var mu sync.Mutex
	return func(token string) error {
		mu.Lock()
		defer mu.Unlock()
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			if _, err := io.WriteString(in, token+"\n"); err != nil {
				return err
			}
			line, err := answers.ReadString('\n')
			if err != nil {
				return err
			}
			line = strings.TrimSpace(line)
			code, _, _ := strings.Cut(line, " ")
			switch {
			case line == "accepted":
				return nil
			// Without keys: the connection's error, or one of these two.
			case strings.HasPrefix(code, "ERR_J") && code != "ERR_JWKS_TIMEOUT" && code != "ERR_JOSE_GENERIC",
				time.Since(began) > patience:
				return errors.New(line)
			}
		}
	}
}

// forgeriesRefused gives a verifier in JavaScript what it must not take, made
// of a token that it takes.
func forgeriesRefused(t *testing.T, verify func(token string) error, token string) {
	t.Helper()
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(claims, []byte(`"sub":"`), []byte(`"sub":"x`), 1)
	if bytes.Equal(changed, claims) {
		t.Fatalf("no subject in %s", claims)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(kid string) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: foreign, KeyID: kid}},
			(&jose.SignerOptions{}).WithType("at+jwt"))
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return forged
	}
	for name, f := range map[string]struct{ token, code string }{
		"a changed payload":                     {header + "." + base64.RawURLEncoding.EncodeToString(changed) + "." + signature, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED "},
		"another issuer's key":                  {sign("foreign"), "ERR_JWKS_NO_MATCHING_KEY "},
		"another issuer's key, named like ours": {sign(keyOf(token)), "ERR_JWS_SIGNATURE_VERIFICATION_FAILED "},
	} {
		if err := verify(f.token); err == nil || !strings.HasPrefix(err.Error(), f.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

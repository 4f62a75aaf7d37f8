package proof

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// hurried makes a deployment one whose keys live for seconds: for so many that a
// busy machine keeps up with them.
func hurried(d *deployment) {
	faulty(d)
	d.env = append(d.env, "SIGNET_FAULT_KEY_SCHEDULE=publish=10s,sign=10s,retire=15s,secret=12s,max-age=1s,token=3s,allowance=4s")
}

// cachedFor is how long the JWK Set may be cached then.
const cachedFor = time.Second

// strictKeys is a verifier's JWK Set that obeys the letter: it is kept as long
// as it may be cached, and no unknown key makes it come any sooner.
type strictKeys struct {
	uri     string
	mu      sync.Mutex
	set     jose.JSONWebKeySet
	fetched time.Time
}

func (s *strictKeys) verify(token string) error {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for began := time.Now(); time.Since(s.fetched) > cachedFor; {
		asked := time.Now()
		if res, err := http.Get(s.uri); err == nil {
			var set jose.JSONWebKeySet
			err = json.NewDecoder(res.Body).Decode(&set)
			res.Body.Close()
			if err == nil && res.StatusCode == http.StatusOK {
				s.set, s.fetched = set, asked
				break
			}
		}
		if time.Since(began) > patience {
			return fmt.Errorf("no JWK Set")
		}
		time.Sleep(20 * time.Millisecond) // a server is being killed
	}
	kid := jws.Signatures[0].Header.KeyID
	found := s.set.Key(kid)
	if len(found) != 1 {
		return fmt.Errorf("%d keys %s in a set of %d, %v old", len(found), kid, len(s.set.Keys), time.Since(s.fetched))
	}
	_, err = jws.Verify(found[0])
	return err
}

// sampleAPI starts cmd/orders, a resource server with package verify, and
// returns a function that asks it with a token.
func (d *deployment) sampleAPI() func(token string) (int, error) {
	d.t.Helper()
	binary := filepath.Join(d.dir, "orders")
	if out, err := exec.Command("go", "build", "-trimpath", "-tags", "faults", "-o", binary, "../../cmd/orders").CombinedOutput(); err != nil {
		d.t.Fatalf("build orders: %v\n%s", err, out)
	}
	logfile, err := os.Create(filepath.Join(d.dir, "orders.log"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer logfile.Close()
	cmd := exec.Command(binary, "--issuer", d.issuer, "--audience", ordersAPI, "--listen", "127.0.0.1:0", "--data", d.dir)
	cmd.Stderr = logfile
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
	})
	var ready struct{ Listen string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &ready) != nil {
		d.t.Fatalf("orders: %q, %v", line, err)
	}
	return func(token string) (int, error) {
		req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://"+ready.Listen+"/orders", nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
}

// G9: the keys of every algorithm replace one another every few seconds, under
// load, while servers die and others start, and no verifier ever refuses a
// token: not ours, not go-oidc, not jose, not one that fetches keys no sooner than
// it has to. At last a key is compromised: what it signed is refused, and what is
// issued from then on is not.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{onSQLite, onPostgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			d := newDeployment(t, engine, hurried)
			d.start(d.replicas())
			scopes, apis := map[string]string{"ES256": "orders:read"}, []string{ordersAPI}
			d.signet("", "resource", "create", ordersAPI, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write", "--token-lifetime", "3s")
			for _, alg := range []string{"RS256", "PS256", "EdDSA"} {
				scopes[alg] = strings.ToLower(alg) + ":read"
				api := "https://" + strings.ToLower(alg) + ".example"
				apis = append(apis, api)
				d.signet("", "resource", "create", api, "--name", alg, "--alg", alg, "--scope", scopes[alg], "--token-lifetime", "3s")
			}
			a := d.service("nightly")
			args := []string{"client", "update", "nightly"}
			for _, scope := range scopes {
				args = append(args, "--scope", scope)
			}
			d.signet("", args...)
			ask, strict, script := d.sampleAPI(), &strictKeys{uri: d.issuer + "/jwks"}, d.inJavaScript(apis...)
			lenient := oidc.NewVerifier(d.issuer, oidc.NewRemoteKeySet(t.Context(), d.issuer+"/jwks"), &oidc.Config{
				SkipClientIDCheck: true, SkipExpiryCheck: true, SupportedSigningAlgs: slices.Collect(maps.Keys(scopes))})
			issue := func(alg string) string {
				r, err := a.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {scopes[alg]}})
				if err != nil || r.Status != http.StatusOK {
					return "" // a server is being killed
				}
				return r.Member("access_token")
			}
			var accepted struct{ strict, lenient, script, ours atomic.Int64 }
			verified := func(token, alg string) error {
				if err := strict.verify(token); err != nil {
					return fmt.Errorf("the strict verifier: %w", err)
				}
				accepted.strict.Add(1)
				for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
					_, err := lenient.Verify(t.Context(), token)
					if err == nil {
						break
					}
					if !strings.Contains(err.Error(), "fetching keys") || time.Since(began) > patience {
						return fmt.Errorf("go-oidc: %w", err)
					}
				}
				accepted.lenient.Add(1)
				if err := script(token); err != nil {
					return fmt.Errorf("jose: %w", err)
				}
				accepted.script.Add(1)
				if alg == "ES256" {
					if status, err := ask(token); err != nil || status != http.StatusOK {
						return fmt.Errorf("package verify: status %d, %v", status, err)
					}
					accepted.ours.Add(1)
				}
				return nil
			}
			var token string
			until(t, "tokens are issued and accepted", func() bool {
				token = issue("ES256")
				return token != "" && verified(token, "ES256") == nil
			})
			forgeriesRefused(t, script, token)

			rotations := often(4, 100)
			ctx, done := context.WithCancel(t.Context())
			defer done()
			var mu sync.Mutex
			signed := make(map[string]map[string]int) // tokens by algorithm and kid
			for alg := range scopes {
				signed[alg] = make(map[string]int)
			}
			var load sync.WaitGroup
			for alg := range scopes {
				load.Go(func() {
					type kept struct {
						token string
						since time.Time
					}
					var old []kept
					for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
						token := issue(alg)
						if token == "" {
							continue
						}
						// With one most of whose life is over, and its key's time to sign perhaps.
						var aged string
						for len(old) > 0 && time.Since(old[0].since) > 2*time.Second {
							aged, old = old[0].token, old[1:]
						}
						old = append(old, kept{token, time.Now()})
						for _, token := range []string{token, aged} {
							if token == "" {
								continue
							}
							if err := verified(token, alg); err != nil {
								t.Errorf("%s: %v", alg, err)
								done()
								return
							}
						}
						mu.Lock()
						signed[alg][keyOf(token)]++
						enough := len(signed[alg]) > rotations
						mu.Unlock()
						if enough && alg == "ES256" {
							done()
						}
					}
				})
			}
			began, restarts := time.Now(), 0
			for ctx.Err() == nil {
				select {
				case <-ctx.Done():
				case <-time.After(7 * time.Second):
					if all := d.servers(); len(all) == d.replicas() {
						all[restarts%len(all)].kill()
						restarts++
						d.start(1)
					}
				}
				if time.Since(began) > time.Duration(rotations)*10*time.Second+2*patience {
					t.Error("keys do not rotate in time")
					done()
				}
			}
			load.Wait()
			total := 0
			for alg, kids := range signed {
				for _, n := range kids {
					total += n
				}
				if len(kids) < rotations/2 {
					t.Errorf("%s: only %d keys signed", alg, len(kids))
				}
			}
			t.Logf("%d rotations of ES256 in %v, %d restarts, %d tokens; accepted by the strict verifier %d times, go-oidc %d, jose %d, package verify %d (ES256 alone)",
				len(signed["ES256"])-1, time.Since(began).Round(time.Second), restarts, total,
				accepted.strict.Load(), accepted.lenient.Load(), accepted.script.Load(), accepted.ours.Load())
			if t.Failed() {
				return
			}

			// The compromise, a while after the last turn, so that everybody has the next.
			var kid string
			until(t, "a key that has signed for a while", func() bool {
				token = issue("ES256")
				if token == "" {
					return false
				}
				kid = keyOf(token)
				now := time.Now()
				return slices.ContainsFunc(d.keys(), func(k keyRow) bool {
					return k.KID == kid && now.Sub(k.SignFrom) > 2*cachedFor && k.SignUntil.Sub(now) > 2*cachedFor
				})
			})
			d.signet("", "key", "compromise", kid)
			until(t, "what the key signed is refused", func() bool {
				status, err := ask(token)
				return err == nil && status == http.StatusUnauthorized && script(token) != nil
			})
			if err := script(token); err == nil || !strings.HasPrefix(err.Error(), "ERR_JWKS_NO_MATCHING_KEY ") {
				t.Errorf("jose, of a token of the compromised key: %v", err)
			}
			// A server may sign with it until it has heard, a second at most.
			settled := time.Now()
			until(t, "the next key signs, at every server", func() bool {
				if token := issue("ES256"); token == "" || keyOf(token) == kid {
					settled = time.Now()
				}
				return time.Since(settled) > 2*time.Second
			})
			for range 20 {
				if token := issue("ES256"); token != "" {
					if err := verified(token, "ES256"); err != nil {
						t.Errorf("after the compromise: %v", err)
					}
				}
			}
		})
	}
}

func keyOf(token string) string {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
	if err != nil {
		return ""
	}
	return jws.Signatures[0].Header.KeyID
}

// keyRow is a signing key as the command line shows it.
type keyRow struct {
	KID       string
	State     string
	SignFrom  time.Time `json:"sign_from"`
	SignUntil time.Time `json:"sign_until"`
}

func (d *deployment) keys() []keyRow {
	return signetJSON[struct{ Items []keyRow }](d, "key", "list").Items
}

// The ordinary program does not know of hurry: its keys live for a month.
func TestOrdinaryProgramIsNotHurried(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onSQLite, func(d *deployment) {
		d.env = append(d.env, "SIGNET_FAULT_KEY_SCHEDULE=publish=5s,sign=5s,retire=9s,max-age=1s,token=3s,allowance=1s")
	})
	d.start(1)
	for _, k := range d.keys() {
		if life := k.SignUntil.Sub(k.SignFrom); life < 30*24*time.Hour {
			t.Errorf("a key signs for %v", life)
		}
	}
	res, err := http.Get(d.issuer + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Cache-Control"); !strings.Contains(got, "max-age=900") {
		t.Errorf("Cache-Control: %s", got)
	}
	if text, err := os.ReadFile(d.binary); err != nil || strings.Contains(string(text), "SIGNET_FAULT_") {
		t.Errorf("the ordinary program names the variable: %v", err)
	}
}

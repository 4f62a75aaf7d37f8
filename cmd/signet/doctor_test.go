package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/web"
)

// examine runs signet doctor and returns what it found.
func (p *place) examine(args string) (found []finding, status int) {
	p.t.Helper()
	out, errs, status := p.run("signet doctor --json " + args)
	var l struct{ Items []finding }
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		p.t.Fatalf("%v: %s%s", err, out, errs)
	}
	for _, f := range l.Items {
		if f.Verdict != verdictOK && f.Fix == "" {
			p.t.Errorf("no cure: %+v", f)
		}
	}
	if failed := slices.ContainsFunc(l.Items, func(f finding) bool { return f.Verdict == verdictFail }); failed != (status == exitFailed) || !failed && status != 0 {
		p.t.Errorf("exit %d of %+v: %s", status, l.Items, errs)
	}
	return l.Items, status
}

// wantFinding fails the test unless there is such a finding.
func wantFinding(t *testing.T, found []finding, verdict, check, words string) {
	t.Helper()
	if !slices.ContainsFunc(found, func(f finding) bool {
		return f.Verdict == verdict && f.Check == check && strings.Contains(f.Message+" "+f.Fix, words)
	}) {
		t.Errorf("not %s %s with %q: %+v", verdict, check, words, found)
	}
}

// A server that is well is told so, on both databases, with nothing secret.
func TestDoctorOfTheHealthy(t *testing.T) {
	onBoth(t, func(t *testing.T, p *place) {
		s := p.serveNamed("--migrate")
		found, status := p.examine("")
		if status != 0 {
			t.Errorf("exit %d", status)
		}
		seen := make(map[string]int)
		for _, f := range found {
			if seen[f.Check]++; f.Verdict != verdictOK {
				t.Errorf("%+v", f)
			}
		}
		for _, check := range []string{"configuration", "database", "schema", "kek", "clock", "keys", "issuer", "tls", "feed", "proxy", "version"} {
			if seen[check] == 0 {
				t.Errorf("%s was not looked at", check)
			}
		}
		if text := fmt.Sprint(found); strings.Contains(text, "sgd_") {
			t.Errorf("it shows its pass: %s", text)
		}
		p.must("signet revoke --jti 3vY0HXo1TGyBxv1yVQpLzA") // the feed goes on, and is compared again
		found, _ = p.examine("")
		wantFinding(t, found, verdictOK, "feed", "at entry 1, as the database")

		// Who has no pass, or an old one, is told nothing.
		for _, authorization := range []string{"", "Bearer sgd_", "Bearer sgd_" + base64.RawURLEncoding.EncodeToString(make([]byte, 60)), "Bearer x"} {
			if r := s.get(s.url+provider.PathDoctor, "Authorization", authorization); r.status != http.StatusNotFound {
				t.Errorf("%q: %s", authorization, r)
			}
		}
	})
}

// What is wrong is found, each with its cure.
func TestDoctorOfTheIll(t *testing.T) {
	p := newPlace(t)
	found, _ := p.examine("--issuer http://localhost:1")
	wantFinding(t, found, verdictFail, "database", "there is no database")
	wantFinding(t, found, verdictFail, "issuer", "connection refused")

	p.must("mkdir data", "touch data/signet.db")
	found, _ = p.examine("")
	wantFinding(t, found, verdictFail, "schema", "signet migrate up")
	wantFinding(t, found, verdictWarn, "configuration", "cannot tell")

	p.must("signet migrate up")
	found, _ = p.examine("")
	wantFinding(t, found, verdictWarn, "configuration", "never served")
	found, _ = p.examine("--issuer http://localhost:1 --listen nowhere --drain soon")
	wantFinding(t, found, verdictFail, "configuration", "--listen")
	wantFinding(t, found, verdictFail, "configuration", "--drain")
	wantFinding(t, found, verdictWarn, "kek", "nothing is sealed")

	s := p.serveNamed()
	found, _ = p.examine("--issuer " + s.issuer + "/else")
	wantFinding(t, found, verdictFail, "issuer", "404")
	wantFinding(t, found, verdictWarn, "configuration", "last served as "+s.issuer)
	found, _ = p.examine("--issuer " + strings.Replace(s.issuer, "127.0.0.1", "localhost", 1))
	wantFinding(t, found, verdictFail, "issuer", "is served as")

	other := newPlace(t)
	other.must("signet client create --name A --grant client_credentials")
	found, _ = other.examine("--issuer " + s.issuer)
	wantFinding(t, found, verdictFail, "issuer", "not in this database")

	p.write("other.kek", newKEK())
	found, _ = p.examine("--kek-file other.kek")
	wantFinding(t, found, verdictFail, "kek", "wrong key-encryption key")

	db := p.openSQLite()
	if _, err := db.ExecContext(t.Context(), `UPDATE signing_keys SET sign_until = 1 WHERE alg = 'PS256' AND sign_from < 4102444800000`); err != nil {
		t.Fatal(err)
	}
	found, _ = p.examine("")
	wantFinding(t, found, verdictFail, "kek", "altered")
	wantFinding(t, found, verdictFail, "keys", "PS256 token: no key signs")
	if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	found, _ = p.examine("")
	wantFinding(t, found, verdictFail, "schema", "newer")
}

// A database that cannot be read is not said to be new, and the cure is named.
func TestDoctorOfADamagedDatabase(t *testing.T) {
	p := newPlace(t)
	p.must("mkdir data", "echo nonsense > data/signet.db")
	found, _ := p.examine("")
	wantFinding(t, found, verdictFail, "database", "signet restore")
	wantFinding(t, found, verdictWarn, "configuration", "cannot tell")
}

// Settings that are seldom meant, to the doctor and in the log of serve.
func TestDoctorOfSettings(t *testing.T) {
	p := newPlace(t)
	p.must("signet resource create https://orders.example.com --name Orders --scope orders:read")
	for _, c := range []struct{ args, verdict, words string }{
		{"--trusted-proxy 10.0.0.0/8", verdictWarn, "10.0.0.0/8 is a large network"},
		{"--trusted-proxy 2001:db8::/48", verdictWarn, "large network"},
		{"--trusted-proxy 10.0.0.0/24 --trusted-proxy 2001:db8::/64 --trusted-proxy 127.0.0.0/8", verdictOK, "as serve would"},
		{"--trusted-proxy 0.0.0.0/0", verdictFail, "10.0.0.5/32"},
		{"--trusted-proxy ::/0", verdictFail, "is everybody"},
		{"--trusted-proxy proxy.example.com", verdictFail, "10.1.2.3/32"},
		{"--registration open --registration-scope orders:read --registration-scope openid", verdictOK, "as serve would"},
		{"--registration open --registration-scope orders:reed", verdictFail, `"orders:reed" is a scope of no resource`},
		{"--registration-scope orders:read", verdictWarn, "while registration is off"},
		{"--client-id-metadata-documents open --registration-scope orders:read", verdictOK, "as serve would"},
		{"--client-id-metadata-documents open --client-id-metadata-loopback", verdictOK, "as serve would"},
		{"--client-id-metadata-documents listed --client-id-metadata-host claude.ai --client-id-metadata-host vscode.dev", verdictOK, "as serve would"},
		{"--client-id-metadata-documents some", verdictFail, "choose off, listed or open"},
		{"--client-id-metadata-documents listed", verdictFail, "no host is"},
		{"--client-id-metadata-documents open --client-id-metadata-host claude.ai", verdictFail, "has no effect"},
		{"--client-id-metadata-documents listed --client-id-metadata-host https://claude.ai", verdictFail, "is not a host"},
		{"--client-id-metadata-documents listed --client-id-metadata-host claude.ai:8443", verdictFail, "is not a host"},
		{"--client-id-metadata-documents listed --client-id-metadata-host Claude.ai", verdictFail, "is not a host"},
		{"--issuer https://login.example.com --client-id-metadata-documents open --client-id-metadata-loopback", verdictFail, "not on this machine"},
	} {
		found, _ := p.examine("--issuer http://localhost:1 " + c.args)
		wantFinding(t, found, c.verdict, "configuration", c.words)
		for _, f := range found {
			if c.verdict == verdictOK && f.Check == "configuration" && f.Verdict != verdictOK {
				t.Errorf("%s: %+v", c.args, f)
			}
		}
	}
	s := p.serve("--registration-scope", "orders:reed", "--trusted-proxy", "10.0.0.0/8")
	for _, words := range []string{"is a scope of no resource", "while registration is off", "is a large network"} {
		until(t, words, func() bool { return strings.Contains(s.stderr.String(), words) })
	}
}

// Clocks apart are told before they stop a server.
func TestDoctorOfClocks(t *testing.T) {
	for off, want := range map[time.Duration]string{
		0: verdictOK, 300 * time.Millisecond: verdictOK, -600 * time.Millisecond: verdictWarn, 1900 * time.Millisecond: verdictWarn, -3 * time.Second: verdictFail, time.Hour: verdictFail,
	} {
		x := &examination{}
		x.clock(&instance{offset: off, policy: provider.DefaultPolicy()})
		if got := x.findings[0]; got.Verdict != want || want != verdictOK && got.Fix == "" {
			t.Errorf("%s off: %+v, want %s", off, got, want)
		}
	}
}

// Whom a server takes a request for, by way of proxies of every kind.
func TestDoctorOfProxies(t *testing.T) {
	appends := func(r *httputil.ProxyRequest) {
		r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
		r.SetXForwarded()
	}
	replaces := func(r *httputil.ProxyRequest) { r.SetXForwarded() }
	passes := func(r *httputil.ProxyRequest) { r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] }
	for _, c := range []struct {
		name    string
		rewrite func(*httputil.ProxyRequest)
		args    []string
		verdict string
		words   string
	}{
		{"trusted, replaces", replaces, []string{"--trusted-proxy", "127.0.0.1/32"}, verdictOK, "by way of 127.0.0.1"},
		{"not trusted, replaces", replaces, nil, verdictFail, "--trusted-proxy 127.0.0.1/32"},
		{"not trusted, appends", appends, nil, verdictFail, "--trusted-proxy 127.0.0.1/32"},
		{"trusted, passes on what anybody says", passes, []string{"--trusted-proxy", "127.0.0.1/32"}, verdictWarn, "any address"},
		{"trusted, takes it away", func(*httputil.ProxyRequest) {}, []string{"--trusted-proxy", "127.0.0.1/32"}, verdictFail, "takes X-Forwarded-For away"},
		{"not trusted, takes it away", func(*httputil.ProxyRequest) {}, nil, verdictOK, "no proxy says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			var to atomic.Value // where the server listens, once it does
			to.Store("")
			proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", to.Load().(string), r.In.Host
				c.rewrite(r)
			}})
			defer proxy.Close()
			s := p.serve(append([]string{"--issuer", proxy.URL}, c.args...)...)
			to.Store(strings.TrimPrefix(s.url, "http://"))
			found, _ := p.examine("")
			wantFinding(t, found, c.verdict, "proxy", c.words)
			wantFinding(t, found, verdictOK, "version", "1 server answered")
		})
	}

	// From another machine.
	far := web.Arrival{Peer: "198.51.100.7", Trusted: true, Forwarded: []string{forged}, Address: forged}
	if v, m, _ := judgeArrival(far); v != verdictFail || !strings.Contains(m, far.Peer) {
		t.Errorf("a network of strangers is trusted: %s %s", v, m)
	}
	far = web.Arrival{Peer: "2001:db8::7", Forwarded: []string{forged, "203.0.113.9"}, Address: "2001:db8::7"}
	if v, _, fix := judgeArrival(far); v != verdictFail || !strings.Contains(fix, "2001:db8::7/128") {
		t.Errorf("a proxy is not trusted: %s %s", v, fix)
	}
}

// The certificate that the world sees is judged as the world does.
func TestDoctorOfTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		host    string
		days    int
		trusted bool
		verdict string
		words   string
	}{
		{"good", "127.0.0.1", 60, true, verdictOK, "good for 59 days"},
		{"soon over", "127.0.0.1", 5, true, verdictWarn, "good for 4 days"},
		{"over", "127.0.0.1", -1, true, verdictFail, "expired"},
		{"another name", "127.0.0.2", 60, true, verdictFail, "another name"},
		{"another authority", "127.0.0.1", 60, false, verdictFail, "authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: c.name},
				NotBefore: time.Now().AddDate(0, 0, -90), NotAfter: time.Now().AddDate(0, 0, c.days), IPAddresses: []net.IP{net.ParseIP(c.host)},
				KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			p := newPlace(t, "SSL_CERT_FILE=ca.pem")
			if c.trusted {
				p.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
			} else {
				p.write("ca.pem", "")
			}
			p.must("signet migrate up")
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				issuer := "https://" + r.Host
				_ = writeJSON(w, map[string]any{"issuer": issuer, "jwks_uri": issuer + "/jwks", "keys": []any{}})
			}))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			found, _ := p.examine("--issuer " + server.URL)
			wantFinding(t, found, c.verdict, "tls", c.words)
			issuer := verdictFail
			if c.verdict != verdictFail {
				issuer = verdictOK
			}
			wantFinding(t, found, issuer, "issuer", "")
		})
	}
}

// A feed that verifiers would not believe is not believed.
func TestDoctorOfTheFeed(t *testing.T) {
	p := newPlace(t)
	p.must("signet revoke --jti 3vY0HXo1TGyBxv1yVQpLzA || true", "signet role create clerk", "signet revoke --jti 3vY0HXo1TGyBxv1yVQpLzA")
	var id string
	if err := p.openSQLite().QueryRowContext(t.Context(), `SELECT feed_id FROM feed_state`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	var messages atomic.Pointer[[]string]
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	defer issuer.Close()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_ = writeJSON(w, map[string]any{"issuer": issuer.URL, "jwks_uri": issuer.URL + "/jwks", "revocation_feed_endpoint": issuer.URL + "/feed"})
	})
	mux.HandleFunc("/feed/poll", func(w http.ResponseWriter, r *http.Request) {
		_ = writeJSON(w, map[string]any{"messages": *messages.Load()})
	})
	beat := func(feed string, seq int, age time.Duration) []string {
		payload := fmt.Appendf(nil, `{"feed_id":%q,"seq":%d,"read_at":%d}`, feed, seq, time.Now().Add(-age).UnixMilli())
		return []string{"e30." + base64.RawURLEncoding.EncodeToString(payload) + "."}
	}
	for _, c := range []struct {
		name           string
		messages       []string
		verdict, words string
	}{
		{"current", beat(id, 1, 0), verdictOK, "entry 1"},
		{"silent", nil, verdictFail, "no heartbeat"},
		{"nonsense", []string{"x"}, verdictFail, "no heartbeat"},
		{"old", beat(id, 1, time.Minute), verdictFail, "silence"},
		{"behind", beat(id, 0, 0), verdictFail, "the database at 1"},
		{"another", beat("OTHER", 1, 0), verdictFail, "another one"},
	} {
		messages.Store(&c.messages)
		found, _ := p.examine("--issuer " + issuer.URL)
		if t.Run(c.name, func(t *testing.T) { wantFinding(t, found, c.verdict, "feed", c.words) }); t.Failed() {
			return
		}
	}
}

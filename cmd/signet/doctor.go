package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/web"
)

type doctorCmd struct {
	serveFlags
	Timeout time.Duration `default:"5s" placeholder:"DUR" help:"How long each server may take to answer (${default})."`
}

// Help says what it looks at.
func (*doctorCmd) Help() string {
	return `Looks at the configuration, the database, the keys and, by the issuer's URL, at the servers that run, as the world sees them. It changes nothing. Run it where serve runs, with the same settings: then it looks at what serve would be given. Without --issuer it is the one this database was last served as.

One line for each check: ok, warn or fail, and below it what to do. Exit status 1 when one fails; 0 when all are ok or warnings.`
}

func (*doctorCmd) Examples() string { return "signet doctor || true" }

// Verdicts of a check.
const (
	verdictOK   = "ok"
	verdictWarn = "warn"
	verdictFail = "fail"
)

type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// examination is what the checks have found so far.
type examination struct {
	app      *app
	timeout  time.Duration
	findings []finding
}

func (x *examination) add(verdict, check, message, fix string) {
	x.findings = append(x.findings, finding{check, verdict, message, fix})
}

func (x *examination) ok(check, format string, args ...any) {
	x.add(verdictOK, check, fmt.Sprintf(format, args...), "")
}

// failed reports the error as a command would.
func (x *examination) failed(check string, err error) {
	f := explain(err)
	x.add(verdictFail, check, f.message, f.fix)
}

func (c *doctorCmd) Run(ctx context.Context, a *app) error {
	x := &examination{app: a, timeout: c.Timeout}
	i := x.database(ctx)
	if i != nil {
		defer i.Close()
	}
	issuer := x.configuration(ctx, c.serveFlags, i)
	var ring *keys.Ring
	if i != nil {
		ring = x.kek(ctx, i)
		x.clock(i)
		x.keys(ctx, i)
	}
	if issuer != nil {
		x.servers(ctx, *issuer, i, ring, c.serveFlags.RevocationFeedScope)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	order := []string{"configuration", "database", "schema", "kek", "clock", "keys", "issuer", "tls", "feed", "proxy", "version"}
	slices.SortStableFunc(x.findings, func(a, b finding) int {
		return cmp.Compare(slices.Index(order, a.Check), slices.Index(order, b.Check))
	})
	if err := a.print(list[finding]{Items: x.findings}, func(w io.Writer) {
		for _, f := range x.findings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Verdict, f.Check, f.Message)
			if f.Fix != "" {
				fmt.Fprintf(w, "\t\t→ %s\n", f.Fix)
			}
		}
	}); err != nil {
		return err
	}
	failed := 0
	for _, f := range x.findings {
		if f.Verdict == verdictFail {
			failed++
		}
	}
	if failed > 0 {
		return &failure{status: exitFailed, code: "unhealthy", message: fmt.Sprintf("%d of %d checks failed", failed, len(x.findings)), fix: "each says what to do"}
	}
	return nil
}

// configuration checks serve's settings and returns the issuer, nil when there
// is none to look at.
func (x *examination) configuration(ctx context.Context, f serveFlags, i *instance) *provider.Issuer {
	if f.Issuer == "" && i != nil {
		f.Issuer = i.issuer
	}
	if f.Issuer == "" && i == nil {
		x.add(verdictWarn, "configuration", "there is no issuer: none is given, and the database cannot tell what it was last served as", "give --issuer, or do first what is said of the database")
		return nil
	}
	if f.Issuer == "" {
		x.add(verdictWarn, "configuration", "there is no issuer: this database was never served", "give --issuer, or start `signet serve`")
		return nil
	}
	cfg, err := f.validate(x.app)
	var invalid *provider.InvalidError
	switch {
	case errors.As(err, &invalid):
		for _, fault := range invalid.Faults {
			x.add(verdictFail, "configuration", fault.Field+" "+fault.Problem, fault.Fix)
		}
	case err != nil:
		x.failed("configuration", err)
	default:
		x.ok("configuration", "%s, as serve would read it here", cfg.Issuer)
		x.notes(ctx, cfg, i)
	}
	issuer, err := provider.ParseIssuer(f.Issuer)
	if err != nil {
		return nil
	}
	if i != nil && i.issuer != "" && i.issuer != f.Issuer {
		x.add(verdictWarn, "configuration", fmt.Sprintf("the database was last served as %s", i.issuer), "tokens of that name are not accepted under another; correct --issuer unless you renamed it")
	}
	return &issuer
}

// notes tells what is not wrong with the configuration by itself.
func (x *examination) notes(ctx context.Context, cfg Config, i *instance) {
	for _, note := range cfg.notes() {
		x.add(verdictWarn, "configuration", note.Field+" "+note.Problem, note.Fix)
	}
	if i == nil {
		return
	}
	unowned, err := cfg.unowned(ctx, i.Store)
	if err != nil {
		x.failed("configuration", err)
	}
	for _, fault := range unowned {
		x.add(verdictFail, "configuration", fault.Field+" "+fault.Problem, fault.Fix)
	}
}

// database opens the database as it is, or returns nil.
func (x *examination) database(ctx context.Context) *instance {
	var faults provider.InvalidError
	db, kek := x.app.common.database(faults.Add), x.app.common.kek(faults.Add)
	if faults.Err() != nil {
		return nil // configuration tells
	}
	err := db.mustExist()
	var schema migrationJSON
	began := time.Now()
	if err == nil {
		schema, err = schemaOf(ctx, db)
	}
	took := time.Since(began).Round(time.Millisecond)
	newer := errors.Is(err, migrations.ErrNewer)
	if err != nil && !newer {
		x.failed("database", err)
		return nil
	}
	if db.sqlite != "" {
		x.ok("database", "SQLite, %s, read in %s", db.sqlite, took)
	} else {
		x.ok("database", "PostgreSQL, connected and read in %s", took)
	}
	switch {
	case newer:
		x.add(verdictFail, "schema", fmt.Sprintf("version %d, newer than this program's %d", schema.Current, schema.Target), "run a release at least as new as the one that migrated it")
		return nil
	case len(schema.Pending) > 0:
		x.add(verdictFail, "schema", fmt.Sprintf("version %d, this program needs %d", schema.Current, schema.Target), "run `signet migrate up`")
		return nil
	}
	x.ok("schema", "version %d, as this program needs it", schema.Current)
	i, err := x.app.connectTo(ctx, db, kek)
	if err != nil {
		x.failed("database", err)
		return nil
	}
	return i
}

// kek checks that the key-encryption key opens the canary and everything else,
// and returns the keys, nil when there are none.
func (x *examination) kek(ctx context.Context, i *instance) *keys.Ring {
	fresh, err := nothingSealed(ctx, i.Store)
	if err == nil && fresh {
		x.add(verdictWarn, "kek", "nothing is sealed yet", "start `signet serve`, which makes the keys")
		return nil
	}
	var sealer *keys.Sealer
	if err == nil {
		sealer, err = i.sealer(ctx)
	}
	var ring *keys.Ring
	if err == nil {
		ring, err = keys.Load(ctx, i.Store, sealer, i.Now())
	}
	if err == nil {
		err = ring.Altered()
	}
	if err != nil {
		x.failed("kek", err)
		return nil
	}
	x.ok("kek", "%s opens the keys; keep a copy of it apart from the database", i.kek.where(i.db))
	return ring
}

// clock compares this machine's clock with the database's.
func (x *examination) clock(i *instance) {
	const fix = "let both be set by NTP"
	off, most := -i.offset.Round(time.Millisecond), i.policy.MaxClockOffset
	switch {
	case i.db.sqlite != "":
		x.ok("clock", "is the database's, too")
	case off.Abs() > most:
		x.add(verdictFail, "clock", fmt.Sprintf("is %s off the database's; beyond %s a server issues nothing", off, most), fix)
	case off.Abs() > most/4:
		x.add(verdictWarn, "clock", fmt.Sprintf("is %s off the database's; beyond %s a server issues nothing", off, most), fix)
	default:
		x.ok("clock", "is within %s of the database's", max(off.Abs(), time.Millisecond))
	}
}

// keys checks that there is one key that signs and one to come, for each
// algorithm and for the feed, each in its time.
func (x *examination) keys(ctx context.Context, i *instance) {
	now := i.Now()
	infos, err := keys.List(ctx, i.Store, now)
	if err != nil {
		x.failed("keys", err)
		return
	}
	if len(infos) == 0 {
		return // kek tells
	}
	type place struct{ alg, purpose string }
	places := []place{{keys.ES256, keys.PurposeFeed}}
	for _, alg := range keys.Algorithms() {
		places = append(places, place{alg, keys.PurposeToken})
	}
	for _, p := range places {
		var active, next *keys.KeyInfo
		retired := 0
		for n := range infos {
			k := &infos[n]
			if (place{k.Alg, k.Purpose}) != p {
				continue
			}
			switch k.State {
			case keys.StateActive:
				active = k
			case keys.StateNext:
				next = k
			case keys.StateRetired:
				retired++
			}
		}
		const fix = "keys replace themselves while `signet serve` runs; if it does, its log says why they do not"
		name := p.alg + " " + p.purpose
		switch {
		case active == nil:
			x.add(verdictFail, "keys", name+": no key signs", fix)
		case next == nil:
			x.add(verdictWarn, "keys", fmt.Sprintf("%s: signs until %s, and no key is published to follow it", name, instant(active.SignUntil)), fix)
		default:
			x.ok("keys", "%s: signs since %s, the next from %s on; %d retired", name, instant(active.SignFrom), instant(next.SignFrom), retired)
		}
	}
}

// servers asks the servers by the issuer's URL.
func (x *examination) servers(ctx context.Context, issuer provider.Issuer, i *instance, ring *keys.Ring, feedScope string) {
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
		Feed    string `json:"revocation_feed_endpoint"`
	}
	began := time.Now()
	state, err := x.fetch(ctx, issuer.Endpoint("/.well-known/openid-configuration"), nil, &metadata)
	took := time.Since(began).Round(time.Millisecond)
	x.tls(issuer, state, err)
	if err != nil {
		x.add(verdictFail, "issuer", err.Error(), "see that `signet serve` runs, that the name leads to it from here, and that every proxy on the way passes requests on")
		return
	}
	if metadata.Issuer != issuer.String() { // OIDC Discovery §4.3
		x.add(verdictFail, "issuer", fmt.Sprintf("%s is served as %q there: clients refuse that", issuer, metadata.Issuer), "give serve the same --issuer, byte for byte, that clients are given")
		return
	}
	var set struct {
		Keys []struct {
			KID string `json:"kid"`
		} `json:"keys"`
	}
	if _, err := x.fetch(ctx, metadata.JWKSURI, nil, &set); err != nil {
		x.add(verdictFail, "issuer", err.Error(), "let the proxy pass on all that is below the issuer")
		return
	}
	if i != nil && ring != nil {
		for _, k := range set.Keys {
			if _, _, known := ring.PublicKey(k.KID); !known && !x.feedKey(ctx, i, k.KID) {
				x.add(verdictFail, "issuer", fmt.Sprintf("it publishes the key %s, which is not in this database", k.KID), "the servers run on another database: correct --database here or there, and restart them after a restore")
				return
			}
		}
	}
	x.ok("issuer", "answers in %s, and calls itself that", took)
	if metadata.Feed != "" && i != nil {
		x.feed(ctx, metadata.Feed, i, feedScope)
	}
	if ring != nil {
		x.arrivals(ctx, issuer, i, ring)
	}
}

// feedKey says whether the key is one of the feed's.
func (x *examination) feedKey(ctx context.Context, i *instance, kid string) bool {
	infos, err := keys.List(ctx, i.Store, i.Now())
	return err == nil && slices.ContainsFunc(infos, func(k keys.KeyInfo) bool { return k.KID == kid })
}

// tls judges the connection to the issuer.
func (x *examination) tls(issuer provider.Issuer, state *tls.ConnectionState, err error) {
	if !issuer.Secure() {
		x.ok("tls", "none: the issuer is on this machine, for development")
		return
	}
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &host):
		x.add(verdictFail, "tls", "the certificate is for another name: "+oneLine(host.Error()), "get one for the host of --issuer")
	case errors.As(err, &authority):
		x.add(verdictFail, "tls", "the certificate's authority is not known here, or the chain is not complete", "serve the intermediate certificates too (--tls-cert takes the chain)")
	case errors.As(err, &invalid):
		x.add(verdictFail, "tls", "the certificate does not count: "+oneLine(invalid.Error()), "renew it; serve takes the new one over on HUP")
	case state == nil || len(state.PeerCertificates) == 0:
		// issuer tells why nothing answers
	default:
		expires := state.PeerCertificates[0].NotAfter
		days := int(math.Floor(time.Until(expires).Hours() / 24))
		message := fmt.Sprintf("%s, the certificate is good for %d days, until %s", tls.VersionName(state.Version), days, instant(expires))
		if days < 14 {
			x.add(verdictWarn, "tls", message, "renew it; serve takes the new one over on HUP")
			return
		}
		x.ok("tls", "%s", message)
	}
}

// feed compares the revocation feed's heartbeat with the database.
func (x *examination) feed(ctx context.Context, endpoint string, i *instance, scope string) {
	if scope != "" {
		x.add(verdictWarn, "feed", "is for holders of the scope "+scope+" only, and was not looked at", "watch signet_revocation_log_age_seconds instead")
		return
	}
	const fix = "see the servers' logs, and that they reach this database"
	table, err := i.Store.RevocationLog(ctx)
	if err != nil {
		x.failed("feed", err)
		return
	}
	var answer struct {
		Messages []string `json:"messages"`
	}
	if _, err := x.fetch(ctx, endpoint+"/poll?wait=2", nil, &answer); err != nil {
		x.add(verdictFail, "feed", err.Error(), "let the proxy pass on all that is below the issuer")
		return
	}
	var beat struct {
		FeedID string `json:"feed_id"`
		Seq    int64  `json:"seq"`
		To     int64  `json:"to"` // of a batch
		ReadAt int64  `json:"read_at"`
	}
	if len(answer.Messages) > 0 {
		parts := strings.Split(answer.Messages[len(answer.Messages)-1], ".")
		if payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)]); err == nil {
			_ = json.Unmarshal(payload, &beat) // nothing read is said to be nothing heard
		}
	}
	age := i.Now().Sub(time.UnixMilli(beat.ReadAt)).Round(time.Millisecond)
	switch {
	case beat.FeedID == "":
		x.add(verdictFail, "feed", "no heartbeat: the server is not sure how far the log is", fix)
	case beat.FeedID != table.FeedID:
		x.add(verdictFail, "feed", "is another one than this database's", "the servers run on another database: correct --database here or there, and restart them after a restore")
	case max(beat.Seq, beat.To) < table.Seq:
		x.add(verdictFail, "feed", fmt.Sprintf("is at entry %d, the database at %d", max(beat.Seq, beat.To), table.Seq), fix)
	case age > 15*time.Second:
		x.add(verdictFail, "feed", fmt.Sprintf("the heartbeat is %s old: verifiers take it for silence", age), fix)
	default:
		x.ok("feed", "the heartbeat is %s old, at entry %d, as the database", max(age, 0), max(beat.Seq, beat.To))
	}
}

// forged is an address that nobody has (RFC 5737).
const forged = "192.0.2.77"

// arrivals asks a few servers how requests reach them.
func (x *examination) arrivals(ctx context.Context, issuer provider.Issuer, i *instance, ring *keys.Ring) {
	const asked = 8 // each on a connection of its own, so that a balancer may choose anew
	servers, versions := make(map[string]bool), make(map[string]bool)
	var last web.Arrival
	for range asked {
		header := http.Header{
			"Authorization":   {"Bearer " + provider.DoctorPass(ring, issuer, i.Now())},
			"X-Forwarded-For": {forged},
		}
		var a web.Arrival
		if _, err := x.fetch(ctx, issuer.Endpoint(provider.PathDoctor), header, &a); err != nil {
			x.add(verdictWarn, "proxy", "could not be found out: "+err.Error(), "servers of an earlier release cannot tell; behind a proxy they cannot, if it drops the header Authorization")
			return
		}
		servers[a.Server], versions[a.Version] = true, true
		last = a
		if v, m, f := judgeArrival(a); v != verdictOK {
			x.add(v, "proxy", m, f)
			break
		}
	}
	if v, m, f := judgeArrival(last); v == verdictOK {
		x.add(v, "proxy", m, f)
	}
	own := serverVersion()
	names := slices.Sorted(func(yield func(string) bool) {
		for v := range versions {
			if !yield(v) {
				return
			}
		}
	})
	switch {
	case len(versions) > 1:
		x.add(verdictWarn, "version", fmt.Sprintf("servers differ: %s", strings.Join(names, ", ")), "finish the rolling update")
	case names[0] != own:
		x.add(verdictWarn, "version", fmt.Sprintf("the servers are %s, this is %s", names[0], own), "run the doctor of the same release")
	default:
		x.ok("version", "%s answered, as this program: %s", counted(len(servers), "server"), own)
	}
}

// judgeArrival says what a request of ours, with a forged X-Forwarded-For, tells
// of the proxies on its way.
func judgeArrival(a web.Arrival) (verdict, message, fix string) {
	added := slices.DeleteFunc(slices.Clone(a.Forwarded), func(hop string) bool { return hop == forged })
	peer := net.ParseIP(a.Peer)
	switch {
	case a.Address == forged && peer != nil && peer.IsLoopback():
		return verdictWarn, fmt.Sprintf("from %s, which is trusted, a program can pretend any address", a.Peer),
			"right if all on this machine is yours and a proxy here replaces or extends X-Forwarded-For"
	case a.Address == forged:
		return verdictFail, fmt.Sprintf("whoever sends X-Forwarded-For by way of %s chooses the address that logs and limits go by", a.Peer),
			"trust no network that clients are in, and let the proxy replace or extend X-Forwarded-For"
	case len(added) > 0 && !a.Trusted:
		return verdictFail, fmt.Sprintf("requests come by way of %s, which is not trusted: all clients have its address in logs and limits", a.Peer),
			fmt.Sprintf("serve with --trusted-proxy %s", prefixOf(a.Peer))
	case len(added) > 0:
		return verdictOK, fmt.Sprintf("this request came by way of %s, for %s", a.Peer, a.Address), ""
	case len(a.Forwarded) == 0 && a.Trusted:
		return verdictFail, fmt.Sprintf("%s is trusted, but takes X-Forwarded-For away: all clients have its address in logs and limits", a.Peer),
			"let the proxy set X-Forwarded-For to the address of its client"
	default:
		return verdictOK, fmt.Sprintf("this request came from %s, and no proxy says that it passed it on", a.Peer), ""
	}
}

func prefixOf(address string) string {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return address + "/128"
	}
	return address + "/32"
}

// fetch gets JSON on a connection of its own, without following redirects.
func (x *examination) fetch(ctx context.Context, address string, header http.Header, v any) (*tls.ConnectionState, error) {
	const longest = 1 << 20
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, longest))
	if err != nil {
		return res.TLS, fmt.Errorf("%s: %w", address, err)
	}
	if res.StatusCode != http.StatusOK {
		return res.TLS, fmt.Errorf("%s answers %s", address, res.Status)
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(v); err != nil {
		return res.TLS, fmt.Errorf("%s answers something else than JSON", address)
	}
	return res.TLS, nil
}

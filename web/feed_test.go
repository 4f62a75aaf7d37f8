package web_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// patience is how long tests wait for what comes in a moment on an idle machine.
const patience = time.Minute

// entry is what a verifier knows about one thing.
type entry struct {
	effect    string
	notBefore int64 // Unix milliseconds
	until     int64
}

// verifierState is what an offline verifier holds: enough of one, written from the
// description of the feed, to see what it would decide.
type verifierState struct {
	t       testing.TB
	site    *site
	feedID  string
	seq     int64
	chain   []byte
	readAt  int64
	entries map[string]entry // by kind and hash
}

func hashOf(kind, value string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + value))
	return kind + " " + base64.RawURLEncoding.EncodeToString(sum[:16])
}

// open checks a signed message of the feed and returns its claims.
func (v *verifierState) open(jws, typ string, claims any) {
	v.t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(v.site.get("/jwks").body), &set); err != nil {
		v.t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		v.t.Fatal(err)
	}
	h := signed.Signatures[0].Protected
	if h.ExtraHeaders["typ"] != typ || len(h.ExtraHeaders) != 1 {
		v.t.Fatalf("typ is %v, want %s alone", h.ExtraHeaders, typ)
	}
	keys := set.Key(h.KeyID)
	if len(keys) != 1 {
		v.t.Fatalf("the kid %q is not in the JWK Set", h.KeyID)
	}
	payload, err := signed.Verify(keys[0])
	if err != nil {
		v.t.Fatal(err)
	}
	var common struct {
		Issuer   string `json:"iss"`
		FeedID   string `json:"feed_id"`
		ReadAt   int64  `json:"read_at"`
		IssuedAt int64  `json:"iat"`
	}
	if err := json.Unmarshal(payload, &common); err != nil {
		v.t.Fatal(err)
	}
	if common.Issuer != v.site.issuer || common.FeedID == "" || common.ReadAt == 0 || common.IssuedAt == 0 {
		v.t.Fatalf("%s of %+v", typ, common)
	}
	if v.feedID != "" && common.FeedID != v.feedID {
		v.t.Fatalf("feed %q, want %q", common.FeedID, v.feedID)
	}
	v.feedID = common.FeedID
	if err := json.Unmarshal(payload, claims); err != nil {
		v.t.Fatal(err)
	}
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verifierState starts from the snapshot.
func (s *site) verifierState(header ...string) *verifierState {
	s.t.Helper()
	v := &verifierState{t: s.t, site: s, entries: make(map[string]entry)}
	a := s.get("/revocations/snapshot", header...)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/octet-stream" {
		s.t.Fatalf("snapshot: %d %s", a.status, a.body)
	}
	line, body, _ := strings.Cut(a.body, "\n")
	var c struct {
		Seq    int64  `json:"seq"`
		Chain  string `json:"chain"`
		Count  int    `json:"count"`
		Size   int    `json:"size"`
		SHA256 string `json:"sha256"`
		ReadAt int64  `json:"read_at"`
	}
	v.open(line, "revocation-snapshot+jwt", &c)
	if sum := sha256.Sum256([]byte(body)); !bytes.Equal(sum[:], unbase64(s.t, c.SHA256)) || c.Size != len(body) {
		s.t.Fatalf("the snapshot's body has %d bytes, want %d with the right digest", len(body), c.Size)
	}
	v.seq, v.chain, v.readAt = c.Seq, unbase64(s.t, c.Chain), c.ReadAt
	rest, count, last := []byte(body), 0, []byte{}
	for len(rest) > 0 {
		header := rest[:14]
		if bytes.Compare(header[:10], last) <= 0 {
			s.t.Errorf("groups are not sorted")
		}
		last = header[:10]
		kind := []string{"", "jti", "grant", "sid", "sub", "client", "kid", "iss"}[header[0]]
		effect := []string{"", "block", "epoch"}[header[1]]
		until := int64(binary.BigEndian.Uint64(header[2:]))
		n := binary.BigEndian.Uint32(header[10:])
		rest = rest[14:]
		for range n {
			e := entry{effect: effect, until: until}
			hash := rest[:16]
			rest = rest[16:]
			if effect == "epoch" {
				e.notBefore = int64(binary.BigEndian.Uint64(rest))
				rest = rest[8:]
			}
			v.entries[kind+" "+base64.RawURLEncoding.EncodeToString(hash)] = e
			count++
		}
	}
	if count != c.Count || len(v.entries) != count {
		s.t.Fatalf("%d records, %d of them distinct, want %d", count, len(v.entries), c.Count)
	}
	return v
}

func (v *verifierState) position() string { return fmt.Sprintf("%s:%d", v.feedID, v.seq) }

// batch applies a batch, its chain checked.
func (v *verifierState) batch(jws string) {
	v.t.Helper()
	var c struct {
		From, To    int64
		Prev, Chain string
		ReadAt      int64 `json:"read_at"`
		Events      []struct {
			Seq                int64
			Kind, Effect, Hash string
			NotBefore          int64 `json:"not_before"`
			Until, At          int64
		}
	}
	v.open(jws, "revocation-batch+jwt", &c)
	if c.From != v.seq+1 || !bytes.Equal(unbase64(v.t, c.Prev), v.chain) || len(c.Events) != int(c.To-c.From+1) || len(c.Events) > 1000 {
		v.t.Fatalf("a batch %d..%d of %d events after %d", c.From, c.To, len(c.Events), v.seq)
	}
	at := func(ms int64) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms)
	}
	for _, e := range c.Events {
		r := storage.Revocation{Seq: e.Seq, Key: storage.RevocationKey{Kind: e.Kind, Hash: unbase64(v.t, e.Hash)}, Effect: e.Effect,
			NotBefore: at(e.NotBefore), Until: at(e.Until), CreatedAt: at(e.At)}
		v.chain = r.ChainAfter(v.chain)
		v.seq++
		if e.Seq != v.seq {
			v.t.Fatalf("event %d where %d is due", e.Seq, v.seq)
		}
		v.entries[e.Kind+" "+e.Hash] = entry{e.Effect, e.NotBefore, e.Until}
	}
	if !bytes.Equal(v.chain, unbase64(v.t, c.Chain)) {
		v.t.Fatalf("the chain is broken in batch %d..%d", c.From, c.To)
	}
}

// heartbeat checks that nothing is missing, and returns the time it speaks of.
func (v *verifierState) heartbeat(jws string) int64 {
	v.t.Helper()
	var c struct {
		Seq    int64
		Chain  string
		ReadAt int64 `json:"read_at"`
	}
	v.open(jws, "revocation-heartbeat+jwt", &c)
	if c.Seq != v.seq || !bytes.Equal(unbase64(v.t, c.Chain), v.chain) {
		v.t.Fatalf("a heartbeat at %d, the verifier is at %d, or the chains differ", c.Seq, v.seq)
	}
	v.readAt = max(v.readAt, c.ReadAt)
	return c.ReadAt
}

// polled asks for what is new until the verifier has caught up with the log.
func (v *verifierState) polled() *verifierState {
	v.t.Helper()
	log, err := v.site.store.RevocationLog(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	for end := time.Now().Add(patience); v.seq < log.Seq; {
		v.poll(1)
		if time.Now().After(end) {
			v.t.Fatalf("at %d of %d after %v", v.seq, log.Seq, patience)
		}
	}
	return v
}

func (v *verifierState) poll(wait int) (messages []string) {
	v.t.Helper()
	a := v.site.get(fmt.Sprintf("/revocations/poll?after=%s&wait=%d", v.position(), wait))
	var answer struct{ Messages []string }
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.status != 200 || answer.Messages == nil {
		v.t.Fatalf("poll: %d %s", a.status, a.body)
	}
	for _, m := range answer.Messages {
		v.message(m)
	}
	return answer.Messages
}

func (v *verifierState) message(jws string) {
	v.t.Helper()
	header, _, _ := strings.Cut(jws, ".")
	if bytes.Contains(unbase64(v.t, header), []byte("revocation-batch+jwt")) {
		v.batch(jws)
	} else {
		v.heartbeat(jws)
	}
}

// refuses says why the verifier refuses the token, or "".
func (v *verifierState) refuses(token string) string {
	v.t.Helper()
	parts := strings.Split(token, ".")
	var h, c map[string]any
	if json.Unmarshal(unbase64(v.t, parts[0]), &h) != nil || json.Unmarshal(unbase64(v.t, parts[1]), &c) != nil {
		v.t.Fatalf("not a token: %s", token)
	}
	issuedAt := int64(c["iat"].(float64))
	for _, about := range []struct{ kind, value any }{
		{"jti", c["jti"]}, {"grant", c["grant_id"]}, {"sid", c["sid"]}, {"sub", c["sub"]}, {"client", c["client_id"]}, {"kid", h["kid"]}, {"iss", c["iss"]},
	} {
		value, _ := about.value.(string)
		if value == "" {
			continue
		}
		e, ok := v.entries[hashOf(about.kind.(string), value)]
		if ok && (e.effect == "block" || issuedAt <= e.notBefore/1000) {
			return about.kind.(string) + " " + e.effect
		}
	}
	return ""
}

// stream is a verifier's connection.
type stream struct {
	t      testing.TB
	res    *http.Response
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// event is one server-sent event; a comment has only text.
type sse struct{ id, event, data, comment string }

func (s *site) stream(after string, header ...string) *stream {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/revocations/stream"+after, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &stream{s.t, res, bufio.NewReader(res.Body), cancel}
	s.t.Cleanup(c.close)
	if res.StatusCode == http.StatusOK {
		if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
			s.t.Errorf("Content-Type = %q", got)
		}
		if first, err := c.lines.ReadString('\n'); err != nil || first != "retry: 2000\n" {
			s.t.Fatalf("first line %q, %v", first, err)
		}
		_, _ = c.lines.ReadString('\n')
	}
	return c
}

func (c *stream) close() {
	c.cancel()
	_ = c.res.Body.Close()
}

// next returns the next event, and false at the end of the stream.
func (c *stream) next() (e sse, more bool) {
	c.t.Helper()
	for {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			return e, false
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			return e, true
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.event = value
		case "data":
			e.data = value
		case "":
			e.comment = value
		default:
			c.t.Fatalf("line %q", line)
		}
	}
}

// follow applies what comes up to and with the first heartbeat.
func (c *stream) follow(v *verifierState) {
	c.t.Helper()
	for {
		e, more := c.next()
		switch {
		case !more:
			c.t.Fatal("the stream ended")
		case e.event == "batch":
			v.batch(e.data)
		case e.event == "heartbeat":
			v.heartbeat(e.data)
		case e.comment == "":
			c.t.Fatalf("event %+v", e)
		}
		if e.event != "" && e.id != v.position() {
			c.t.Fatalf("id %q of %s, the verifier is at %s", e.id, e.event, v.position())
		}
		if e.event == "heartbeat" {
			return
		}
	}
}

// revokeToken is what the token's client does.
func (s *site) revokeToken(id, secret, token string) {
	s.t.Helper()
	if a := s.form("/revoke", id, secret, map[string][]string{"token": {token}}); a.status != 200 {
		s.t.Fatalf("revoke: %d %s", a.status, a.body)
	}
}

func TestFeed(t *testing.T) {
	onBoth(t, options{path: "/tenant"}, func(t *testing.T, s *site) {
		secret := s.register("service")
		v := s.verifierState()
		if v.seq != 0 || len(v.entries) != 0 || v.chain == nil {
			t.Fatalf("an empty log: %+v", v)
		}
		one, two, three := s.token("service", secret, "orders:read"), s.token("service", secret, "orders:read"), s.token("service", secret, "orders:read")
		live := s.stream("?after=" + v.position())
		live.follow(v)

		s.revokeToken("service", secret, one)
		e, more := live.next()
		if !more || e.event != "batch" {
			t.Fatalf("after a revocation: %+v", e)
		}
		v.batch(e.data)
		if v.refuses(one) != "jti block" || v.refuses(two) != "" {
			t.Errorf("the first token is refused for %q, the second for %q", v.refuses(one), v.refuses(two))
		}

		// Another verifier starts from the snapshot, one goes on where it was.
		s.revokeToken("service", secret, two)
		late := s.verifierState().polled()
		if late.refuses(one) != "jti block" || late.refuses(two) != "jti block" || late.refuses(three) != "" {
			t.Errorf("from the snapshot: %q, %q, %q", late.refuses(one), late.refuses(two), late.refuses(three))
		}
		again := s.stream("?after=ignored:7", "Last-Event-ID", v.position())
		for again.follow(v); v.seq < 2; {
			again.follow(v)
		}
		if v.refuses(two) != "jti block" || v.seq != 2 {
			t.Errorf("going on: at %d, the second token is refused for %q", v.seq, v.refuses(two))
		}
		// From now on, when no position is given.
		now := s.stream("")
		if e, _ := now.next(); e.event != "heartbeat" || e.id != v.position() {
			t.Errorf("without a position: %+v", e)
		}
		if a := s.get("/.well-known/openid-configuration"); a.member("revocation_feed_endpoint") != s.issuer+"/revocations" {
			t.Errorf("metadata: %q", a.member("revocation_feed_endpoint"))
		}
	})
}

func TestFeedPoll(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("service")
		v := s.verifierState()
		if m := v.poll(0); len(m) != 1 {
			t.Fatalf("nothing new: %d messages, want a heartbeat", len(m))
		}
		waiting := make(chan int)
		token := s.token("service", secret, "orders:read")
		go func() { waiting <- len(v.poll(25)) }()
		s.revokeToken("service", secret, token)
		if n := <-waiting; n != 2 || v.refuses(token) != "jti block" {
			t.Errorf("%d messages, want a batch and a heartbeat; refused for %q", n, v.refuses(token))
		}
		a := s.get("/revocations/poll?after=" + v.position())
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control = %q", got)
		}
	})
}

func TestFeedPositions(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.register("service")
		v := s.verifierState()
		for _, position := range []string{"", "x", v.feedID, v.feedID + ":", v.feedID + ":-1", v.feedID + ":+1", v.feedID + ":01", ":1", "a b:1", strings.Repeat("a", 200) + ":1"} {
			for _, path := range []string{"stream", "poll"} {
				s.get("/revocations/"+path+"?after="+strings.ReplaceAll(position, " ", "%20")).isRefusal(t, 400, "invalid_request")
			}
		}
		for _, wait := range []string{"26", "-1", "x", "1.5"} {
			s.get("/revocations/poll?wait="+wait).isRefusal(t, 400, "invalid_request")
		}
		resync := func(position string) {
			t.Helper()
			c := s.stream("?after=" + position)
			for e, more := c.next(); ; e, more = c.next() {
				if !more {
					t.Fatalf("%s: the stream ended without a word", position)
				}
				if e.event == "resync" {
					if _, more := c.next(); more {
						t.Errorf("%s: the stream goes on after resync", position)
					}
					break
				}
				if e.comment != "wait" {
					t.Fatalf("%s: %+v", position, e)
				}
			}
			if a := s.get("/revocations/poll?wait=25&after=" + position); a.member("resync") == "" {
				t.Errorf("%s: poll says %s", position, a.body)
			}
		}
		resync("another:0")
		resync(v.feedID + ":99") // beyond the end: never committed
	})
}

// What a replica kept in memory begins where the log was when it started, if
// what was before has been pruned.
func TestFeedTooOld(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		v := s.verifierState()
		err := s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			now := s.clock.now()
			for i := range 3 {
				entry := revocation.Block(revocation.KindToken, fmt.Sprint(i), "", now.Add(-time.Hour), now.Add(time.Duration(i-2)*time.Minute))
				if _, err := tx.AppendRevocation(ctx, entry); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.verifierState().polled() // this replica has seen all of them
		err = s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PruneExpired(ctx, s.clock.now().Add(-90*time.Second), 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		replica := newSite(t, s.db.open(t), options{beside: s})
		// Entry 1 is gone, and entry 2's predecessor with it.
		if a := replica.get("/revocations/poll?after=" + v.position()); a.member("resync") == "" {
			t.Errorf("before the oldest: %s", a.body)
		}
		v.entries, v.feedID = map[string]entry{}, ""
		fresh := replica.verifierState()
		if fresh.seq != 3 || len(fresh.entries) != 0 {
			t.Errorf("snapshot at %d with %d entries, want 3 with none that counts", fresh.seq, len(fresh.entries))
		}
		fresh.poll(0)
		// The replica that saw all of them still has them all.
		v.feedID = fresh.feedID
		if v.polled(); v.seq != 3 {
			t.Errorf("at the first replica: %d", v.seq)
		}
	})
}

func TestFeedSnapshotIsCached(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("service")
		first := s.get("/revocations/snapshot")
		tag := first.header.Get("Etag")
		for _, a := range []answer{s.get("/revocations/snapshot", "If-None-Match", tag), s.get("/revocations/snapshot", "If-None-Match", `"x", W/`+tag)} {
			// The minute may have changed between the two.
			if a.status != http.StatusNotModified && a.header.Get("Etag") == tag || a.status == http.StatusNotModified && a.body != "" {
				t.Errorf("with its ETag: %d with %d bytes", a.status, len(a.body))
			}
		}
		if got := first.header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("Cache-Control = %q", got)
		}
		s.revokeToken("service", secret, s.token("service", secret, "orders:read"))
		s.verifierState().polled() // the replica has seen it
		if a := s.get("/revocations/snapshot", "If-None-Match", tag); a.status != http.StatusOK {
			t.Errorf("after a change: %d", a.status)
		}
		if a := s.send(http.MethodHead, "/revocations/snapshot", ""); a.status != 200 || a.body != "" || a.header.Get("Content-Length") == "" {
			t.Errorf("HEAD: %d %v", a.status, a.header)
		}
		if a := s.send(http.MethodHead, "/revocations/stream", ""); a.status != 200 || a.body != "" {
			t.Errorf("HEAD of the stream: %d %v", a.status, a.header)
		}
		for _, path := range []string{"snapshot", "stream", "poll"} {
			if a := s.send(http.MethodPost, "/revocations/"+path, ""); a.status != http.StatusMethodNotAllowed {
				t.Errorf("POST %s: %d", path, a.status)
			}
			if a := s.send(http.MethodOptions, "/revocations/"+path, "", "Access-Control-Request-Method", "GET"); a.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("preflight of %s: %v", path, a.header)
			}
		}
	})
}

// A replica that another one's verifier comes to serves the same chain.
func TestFeedOfReplicas(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("service")
		replica := newSite(t, s.db.open(t), options{beside: s})
		v := s.verifierState()
		for i := range 5 {
			s.revokeToken("service", secret, s.token("service", secret, "orders:read"))
			v.site = []*site{s, replica}[i%2]
			v.polled()
		}
		if v.seq != 5 {
			t.Errorf("at %d after 5 revocations", v.seq)
		}
	})
}

func TestFeedLimits(t *testing.T) {
	onBoth(t, options{policy: func(p *provider.Policy) { p.FeedConnections = 2 }, proxies: trusted()}, func(t *testing.T, s *site) {
		v := s.verifierState()
		a := s.stream("?after="+v.position(), "X-Forwarded-For", "198.51.100.1")
		b := s.stream("?after="+v.position(), "X-Forwarded-For", "198.51.100.2")
		a.follow(v)
		b.follow(v)
		refused := s.get("/revocations/stream")
		refused.isRefusal(t, http.StatusServiceUnavailable, "temporarily_unavailable")
		if refused.header.Get("Retry-After") < "1" {
			t.Errorf("Retry-After = %q", refused.header.Get("Retry-After"))
		}
		a.close()
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if s.get("/revocations/poll").status == http.StatusOK {
				break
			}
			if time.Now().After(end) {
				t.Fatal("a connection that ended still counts")
			}
		}
		// The whole server stops: streams end, and no new one begins.
		s.server.Drain()
		for {
			if _, more := b.next(); !more {
				break
			}
		}
		if again := s.stream(""); again.res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a stream while draining: %d", again.res.StatusCode)
		}
	})
}

// Nobody keeps all others out: one network gets half of the places.
func TestFeedPlacesOfOneNetwork(t *testing.T) {
	onBoth(t, options{policy: func(p *provider.Policy) { p.FeedConnections = 4 }, proxies: trusted()}, func(t *testing.T, s *site) {
		at := "?after=" + s.verifierState().position()
		from := func(address string) *stream { return s.stream(at, "X-Forwarded-For", address) }
		v6 := from("2001:db8:0:1::1")
		for what, c := range map[string]*stream{"one": v6, "another of the same /64": from("2001:db8:0:1:ffff::2")} {
			if c.res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d", what, c.res.StatusCode)
			}
		}
		for _, path := range []string{"/revocations/stream", "/revocations/poll", "/revocations/snapshot"} {
			refused := s.get(path, "X-Forwarded-For", "2001:db8:0:1:8::3")
			refused.isRefusal(t, http.StatusServiceUnavailable, "temporarily_unavailable")
			if refused.header.Get("Retry-After") < "1" {
				t.Errorf("%s: Retry-After = %q", path, refused.header.Get("Retry-After"))
			}
		}
		for _, address := range []string{"2001:db8:0:2::1", "198.51.100.1"} {
			if c := from(address); c.res.StatusCode != http.StatusOK {
				t.Errorf("%s, of another network: %d", address, c.res.StatusCode)
			}
		}
		s.get("/revocations/poll", "X-Forwarded-For", "198.51.100.2").isRefusal(t, http.StatusServiceUnavailable, "temporarily_unavailable")
		v6.close()
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if s.get("/revocations/poll", "X-Forwarded-For", "2001:db8:0:1::4").status == http.StatusOK {
				break
			}
			if time.Now().After(end) {
				t.Fatal("a place that is free again is not given")
			}
		}
	})
}

func TestFeedScope(t *testing.T) {
	onBoth(t, options{feedScope: "feed:read"}, func(t *testing.T, s *site) {
		secret := s.register("service")
		r := s.admin.DefaultResource()
		r.URI, r.Name, r.Scopes = s.issuer+"/revocations", "Revocation feed", []storage.Scope{{Name: "feed:read"}, {Name: "feed:other"}}
		if _, err := s.admin.CreateResource(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		api := s.client("api", func(c *storage.Client) { c.Scopes = []string{"feed:read", "feed:other"} })
		s.settle()
		bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
		for _, path := range []string{"/revocations/snapshot", "/revocations/stream", "/revocations/poll"} {
			if a := s.get(path); a.status != 401 || a.header.Get("WWW-Authenticate") != `Bearer realm="`+s.issuer+`"` {
				t.Errorf("%s without a token: %d %q", path, a.status, a.header.Get("WWW-Authenticate"))
			}
			if a := s.get(path, bearer(s.token("service", secret, "orders:read"))...); a.status != 401 || a.member("error") != "invalid_token" {
				t.Errorf("%s with another API's token: %d %s", path, a.status, a.body)
			}
			a := s.get(path, bearer(s.token("api", api, "feed:other"))...)
			if a.status != 403 || a.member("error") != "insufficient_scope" || !strings.Contains(a.header.Get("WWW-Authenticate"), `scope="feed:read"`) {
				t.Errorf("%s without the scope: %d %s", path, a.status, a.body)
			}
		}
		token := s.token("api", api, "feed:read")
		s.verifierState(bearer(token)...)
		if c := s.stream("", bearer(token)...); c.res.StatusCode != 200 {
			t.Errorf("stream: %d", c.res.StatusCode)
		}
		s.revokeToken("api", api, token)
		if a := s.get("/revocations/poll", bearer(token)...); a.status != 401 {
			t.Errorf("with a revoked token: %d %s", a.status, a.body)
		}
	})
}

// A request that announces a body and does not send it keeps no connection: the
// feed lifts the limits that end such ones elsewhere.
func TestFeedWaitsForNoBody(t *testing.T) {
	t.Parallel()
	s := newSite(t, openStore(t, migrations.SQLite), options{})
	for _, path := range []string{"/revocations/snapshot", "/revocations/stream", "/revocations/poll"} {
		for _, body := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", path, body); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != http.StatusBadRequest || !res.Close {
				t.Errorf("%s with %s: %v, %v", path, body, res, err)
			}
		}
	}
	if !strings.Contains(s.scrape(), "signet_revocation_feed_connections 0") {
		t.Error("they count as connections to the feed")
	}
}

// A verifier that does not read what it is sent is cut off.
func TestFeedCutsSlowReaders(t *testing.T) {
	t.Parallel()
	s := newSite(t, openStore(t, migrations.SQLite), options{policy: func(p *provider.Policy) { p.FeedPatience = 100 * time.Millisecond }})
	v := s.verifierState()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /revocations/stream?after=%s HTTP/1.1\r\nHost: x\r\n\r\n", v.position()); err != nil {
		t.Fatal(err)
	}
	now := s.clock.now()
	cut := func() bool {
		return strings.Contains(s.scrape(), "signet_revocation_feed_slow_total 1")
	}
	for end := time.Now().Add(patience); !cut(); {
		if time.Now().After(end) {
			t.Fatal("it is not cut off")
		}
		err := s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			for range 2000 {
				if _, err := tx.AppendRevocation(ctx, revocation.Block(revocation.KindToken, rand.Text(), "", now, now.Add(time.Hour))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// scrape returns the metrics as an operator reads them.
func (s *site) scrape() string {
	w := httptest.NewRecorder()
	s.ops.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/verify/verifytest"
)

// server is a running one, with an issuer of its own.
type server struct {
	t        *testing.T
	issuer   *verifytest.Issuer
	url      string // of its host
	audience string // what clients are given
}

func start(t *testing.T, path string) *server {
	t.Helper()
	var h http.Handler
	listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	s := &server{t, verifytest.NewIssuer(t), listening.URL, listening.URL + path}
	a, err := New(t.Context(), Config{Issuer: s.issuer.URL, Audience: s.audience})
	if err != nil {
		t.Fatal(err)
	}
	h = a.Handler()
	t.Cleanup(func() {
		listening.Close()
		a.Close()
	})
	return s
}

type reply struct {
	status    int
	challenge string
	body      string
}

// post sends a message of JSON-RPC, or whatever body is.
func (s *server) post(token, body string) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.audience, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("MCP-Protocol-Version", "2025-03-26") // the one that has batches
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header.Get("WWW-Authenticate"), string(text)}
}

// tool is the message that calls a tool.
func tool(name, arguments string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, name, arguments)
}

// call calls a tool and returns what it answers, or its error.
func (s *server) call(token, name, arguments string) (answer string, failed bool) {
	s.t.Helper()
	got := s.post(token, tool(name, arguments))
	var m struct {
		Result struct {
			IsError bool
			Content []struct{ Text string }
		}
	}
	if err := json.Unmarshal([]byte(got.body), &m); err != nil || got.status != http.StatusOK || len(m.Result.Content) != 1 {
		s.t.Fatalf("%s: %d %s", name, got.status, got.body)
	}
	return m.Result.Content[0].Text, m.Result.IsError
}

func (s *server) token(subject string, scopes ...string) string {
	return s.issuer.Token(s.audience, verifytest.Subject(subject), verifytest.Client("desk"), verifytest.Scope(scopes...))
}

func TestChallenges(t *testing.T) {
	for _, path := range []string{"/mcp", ""} {
		t.Run("at "+path+"/", func(t *testing.T) {
			s := start(t, path)
			list, add := tool("list_notes", "{}"), tool("add_note", `{"text":"x"}`)
			where := `resource_metadata="` + s.url + "/.well-known/oauth-protected-resource" + path + `"`
			none, reader, writer := s.token("ada"), s.token("ada", scopeRead), s.token("ada", scopeWrite)
			lacks := func(scope string) string {
				return `Bearer error="insufficient_scope", error_description="the access token lacks a scope", scope="` + scope + `", ` + where
			}
			for _, test := range []struct {
				name, token, body string
				status            int
				challenge         string
			}{
				{"no token", "", list, 401, `Bearer scope="notes:read", ` + where},
				{"a token for another audience", s.issuer.Token("https://orders.example", verifytest.Scope(scopeRead)), list, 401,
					`Bearer error="invalid_token", error_description="the access token is for another audience", scope="notes:read", ` + where},
				{"a token of another issuer", verifytest.NewIssuer(t).Token(s.audience, verifytest.Scope(scopeRead)), list, 401, ""},
				{"no scope at all", none, list, 403, lacks(scopeRead)},
				{"a tool that writes, for who reads", reader, add, 403, lacks(scopeRead + " " + scopeWrite)},
				{"a tool that writes", none, add, 403, lacks(scopeWrite)},
				{"a tool that reads", writer, list, 403, lacks(scopeRead + " " + scopeWrite)},
				{"one of a batch", reader, "[" + list + "," + add + "]", 403, lacks(scopeRead + " " + scopeWrite)},
				{"a tool for everybody", none, tool("whoami", "{}"), 200, ""},
				{"the list of tools", none, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, 200, ""},
				{"a tool that is not there", reader, tool("burn_notes", "{}"), 200, ""},
				{"no JSON", reader, "{", 400, ""},
				{"too long", reader, tool("add_note", `{"text":"`+strings.Repeat("x", maxBody)+`"}`), 413, ""},
			} {
				t.Run(test.name, func(t *testing.T) {
					got := s.post(test.token, test.body)
					if got.status != test.status || test.challenge != "" && got.challenge != test.challenge {
						t.Errorf("%d %s\n%s", got.status, got.challenge, got.body)
					}
				})
			}
			if answer, _ := s.call(reader, "list_notes", "{}"); answer != `{"notes":[]}` {
				t.Errorf("something was written: %s", answer)
			}
			res, err := http.Get(s.url + "/.well-known/oauth-protected-resource" + path)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var metadata struct {
				Resource string
				Servers  []string `json:"authorization_servers"`
			}
			if err := json.NewDecoder(res.Body).Decode(&metadata); err != nil || metadata.Resource != s.audience ||
				len(metadata.Servers) != 1 || metadata.Servers[0] != s.issuer.URL {
				t.Errorf("metadata %+v %v", metadata, err)
			}
		})
	}
}

// A message that looks to requireScopes like something else than to the SDK does
// not get past the tool.
func TestToolsLookAtScopesThemselves(t *testing.T) {
	s := start(t, "/mcp")
	disguised := strings.Replace(tool("add_note", `{"text":"x"}`), "}}}", `}},"Method":"tools/list"}`, 1)
	got := s.post(s.token("ada", scopeRead), disguised)
	if got.status != http.StatusOK || !strings.Contains(got.body, "the access token lacks the scope notes:write") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestNotesAreTheirWriters(t *testing.T) {
	s := start(t, "/mcp")
	ada, bob := s.token("ada", scopeRead, scopeWrite), s.token("bob", scopeRead, scopeWrite)
	if answer, failed := s.call(ada, "add_note", `{"text":"water the plants"}`); failed || !strings.Contains(answer, `"id":1`) {
		t.Fatal(answer)
	}
	if answer, _ := s.call(ada, "list_notes", "{}"); !strings.Contains(answer, "water the plants") {
		t.Errorf("Ada reads %s", answer)
	}
	if answer, _ := s.call(bob, "list_notes", "{}"); answer != `{"notes":[]}` {
		t.Errorf("Bob reads %s", answer)
	}
	if answer, failed := s.call(bob, "delete_note", `{"id":1}`); !failed || answer != "there is no note 1" {
		t.Errorf("Bob deletes: %s", answer)
	}
	if answer, failed := s.call(ada, "delete_note", `{"id":1}`); failed {
		t.Errorf("Ada deletes: %s", answer)
	}
	if answer, _ := s.call(ada, "list_notes", "{}"); answer != `{"notes":[]}` {
		t.Errorf("Ada reads %s", answer)
	}
	if answer, _ := s.call(ada, "whoami", "{}"); answer != `{"client":"desk","scopes":["notes:read","notes:write"],"subject":"ada"}` {
		t.Errorf("Ada is %s", answer)
	}
}

func TestNotesAreBounded(t *testing.T) {
	n := newNotebooks(nil)
	for _, text := range []string{"", strings.Repeat("ä", maxText+1), "\xff"} {
		if _, err := n.add("ada", text); err == nil {
			t.Errorf("took %d bytes", len(text))
		}
	}
	for range maxNotes {
		if _, err := n.add("ada", strings.Repeat("ä", maxText)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.add("ada", "one more"); err == nil {
		t.Error("took more notes than there may be")
	}
	for i := range maxPeople - 1 {
		if _, err := n.add(fmt.Sprint(i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.add("late", "x"); err == nil {
		t.Error("took notes of more people than there may be")
	}
	if err := n.delete("0", n.list("0")[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := n.add("late", "x"); err != nil {
		t.Errorf("whose notes are gone still counts: %v", err)
	}
}

func TestReadyWhenTokensCanBeChecked(t *testing.T) {
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	a, err := New(t.Context(), Config{Issuer: down.URL, Audience: "https://notes.example/mcp"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for path, status := range map[string]int{"/livez": 200, "/readyz": 503, "/mcp": 401, "/": 404} {
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != status {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	s := start(t, "/mcp")
	if res, err := http.Get(s.url + "/readyz"); err != nil || res.StatusCode != 200 {
		t.Errorf("%v %v", res, err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, audience := range []string{"", "notes", "https://notes.example/mcp?a", "https://notes.example/mcp#a", "http://notes.example/mcp"} {
		func() {
			defer func() {
				if fault := recover(); fault != nil {
					t.Errorf("%q panics: %v", audience, fault)
				}
			}()
			if a, err := New(t.Context(), Config{Issuer: "http://127.0.0.1:1", Audience: audience}); err == nil {
				a.Close()
				t.Errorf("%q is taken", audience)
			}
		}()
	}
}

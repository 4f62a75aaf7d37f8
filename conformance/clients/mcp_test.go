package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// notesProgram builds the sample MCP server when the first test asks for it.
var notesProgram = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(program), "notes")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", path, "../../cmd/notes").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build notes: %w\n%s", err, bytes.TrimSpace(out))
	}
	return path, nil
})

// startNotes registers an MCP server at an issuer and runs it. It says that its
// tokens come from named, which is the issuer unless the server is to be wrong.
func startNotes(t *testing.T, i *issuer.Issuer, named string) string {
	t.Helper()
	path, err := notesProgram()
	if err != nil {
		t.Fatal(err)
	}
	listen := issuer.FreeAddress(t)
	at := "http://" + listen + "/mcp"
	if named == i.URL {
		i.Signet(nil, "resource", "create", at, "--name", "Notes", "--scope", "notes:read", "--scope", "notes:write")
	}
	cmd := exec.Command(path, "--issuer", named, "--audience", at, "--listen", listen)
	var said bytes.Buffer
	cmd.Stderr, cmd.Env = &said, append(os.Environ(), "SSL_CERT_FILE="+i.CAFile)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("notes: %v", err)
		}
		if t.Failed() {
			t.Logf("what notes said:\n%s", said.String())
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, `"ready"`) {
		t.Fatalf("notes: %q, %v\n%s", line, err, said.String())
	}
	return at
}

// startForMCP starts an issuer at which MCP clients may register themselves, or be
// known by a metadata document.
func startForMCP(t *testing.T, path, database string) *issuer.Issuer {
	t.Helper()
	return issuer.StartUnder(t, path, program, database, "--registration", "open",
		"--registration-scope", "notes:read", "--registration-scope", "notes:write",
		"--client-id-metadata-documents", "open", "--client-id-metadata-loopback")
}

// An agent is a person's MCP client on the Go SDK.
type agent struct {
	*mcp.ClientSession
	browser *people.Browser
	asked   []url.Values // its authorization requests
}

const agentCallback = "http://127.0.0.1:49152/callback" // where nobody has to be

// publishDocument publishes the metadata document of a client and returns its URL.
func publishDocument(i *issuer.Issuer) string {
	id := ""
	origin := i.Publish(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"client_id": id, "client_name": "Agent with a document", "redirect_uris": []string{agentCallback},
			"grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none",
		}) // an error is the issuer gone
	}))
	id = origin + "/agent.json"
	return id
}

// connect gives the SDK the server's URL, and a person who allows what is asked. The
// client registers itself unless it has a document.
func connect(t *testing.T, i *issuer.Issuer, ada *people.Person, at, document string) (*agent, error) {
	t.Helper()
	a := &agent{browser: i.Browser(ada)}
	config := &auth.AuthorizationCodeHandlerConfig{
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "Go agent", RedirectURIs: []string{agentCallback}, TokenEndpointAuthMethod: "none",
			GrantTypes: []string{"authorization_code", "refresh_token"}, Scope: "notes:read",
		}},
		RequestRefreshToken: true,
		// The token is refreshed once before it is used.
		NewTokenSource: func(ctx context.Context, config *oauth2.Config, given *oauth2.Token) (oauth2.TokenSource, error) {
			expired := *given
			expired.Expiry = time.Now().Add(-time.Hour)
			source := config.TokenSource(ctx, &expired)
			if next, err := source.Token(); err != nil || next.AccessToken == given.AccessToken || next.RefreshToken == given.RefreshToken {
				return nil, fmt.Errorf("refresh: the same tokens again, or %w", err)
			}
			return source, nil
		},
		Client: i.Via,
		AuthorizationCodeFetcher: func(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			request, err := url.Parse(args.URL)
			if err != nil {
				return nil, err
			}
			a.asked = append(a.asked, request.Query())
			if err := a.browser.Consent(args.URL); err != nil {
				return nil, err
			}
			if a.browser.Left == nil || !strings.HasPrefix(a.browser.Left.String(), agentCallback+"?") {
				return nil, fmt.Errorf("the browser is elsewhere: %s", a.browser.Page)
			}
			answer := a.browser.Left.Query()
			if answer.Has("error") {
				return nil, fmt.Errorf("%s: %s", answer.Get("error"), answer.Get("error_description"))
			}
			return &auth.AuthorizationResult{Code: answer.Get("code"), State: answer.Get("state"), Iss: answer.Get("iss")}, nil
		},
	}
	if document != "" {
		config.ClientIDMetadataDocumentConfig = &auth.ClientIDMetadataDocumentConfig{URL: document}
	}
	h, err := auth.NewAuthorizationCodeHandler(config)
	if err != nil {
		t.Fatal(err)
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, nil)
	a.ClientSession, err = client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: at, OAuthHandler: h}, nil)
	if err == nil {
		t.Cleanup(func() { _ = a.Close() }) // the server keeps no session
	}
	return a, err
}

// call calls a tool and returns what it says.
func (a *agent) call(t *testing.T, tool string, arguments map[string]any) string {
	t.Helper()
	result, err := a.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: arguments})
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	text, _ := result.Content[0].(*mcp.TextContent)
	if result.IsError || text == nil {
		t.Fatalf("%s: %+v", tool, result)
	}
	return text.Text
}

// A client on the official Go SDK that is given a server's URL alone finds the
// issuer, registers or names its document, has the person sign in, and asks for more
// when a tool needs it. Its issuer has a path, whose metadata are at the place that
// RFC 8414 §3.1 gives them, or none.
func TestMCPGoSDK(t *testing.T) {
	t.Parallel()
	for engine, path := range map[string]string{"SQLite": "/tenant/one", "PostgreSQL": ""} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			database := ""
			if engine == "PostgreSQL" {
				database = storagetest.Postgres(t)
			}
			i := startForMCP(t, path, database)
			at := startNotes(t, i, i.URL)
			t.Run("registered", func(t *testing.T) { useNotes(t, i, i.Person("ada"), at, "") })
			t.Run("by its document", func(t *testing.T) { useNotes(t, i, i.Person("bob"), at, publishDocument(i)) })
		})
	}
}

// useNotes is what a person who has no notes does with a client of theirs.
func useNotes(t *testing.T, i *issuer.Issuer, p *people.Person, at, document string) {
	a, err := connect(t, i, p, at, document)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.call(t, "list_notes", nil); got != `{"notes":[]}` {
		t.Errorf("at first: %s", got)
	}
	a.call(t, "add_note", map[string]any{"text": "feed the heron"}) // more than was asked for
	if got := a.call(t, "list_notes", nil); !strings.Contains(got, "feed the heron") {
		t.Errorf("and then: %s", got)
	}
	var account struct{ Sub string }
	i.Signet(&account, "user", "show", p.Name)
	var who struct{ Subject, Client string }
	if err := json.Unmarshal([]byte(a.call(t, "whoami", nil)), &who); err != nil || account.Sub == "" || who.Subject != account.Sub {
		t.Errorf("%s is called %+v, %v", account.Sub, who, err)
	}
	if last := a.asked[len(a.asked)-1].Get("client_id"); who.Client != last || document != "" && last != document {
		t.Errorf("client %s, which asked as %s", who.Client, last)
	}

	scopes := make([]string, len(a.asked))
	for n, asked := range a.asked {
		all := strings.Fields(asked.Get("scope"))
		slices.Sort(all)
		scopes[n] = strings.Join(all, " ")
		if asked.Get("resource") != at || asked.Get("code_challenge_method") != "S256" {
			t.Errorf("asked %v", asked)
		}
	}
	if want := []string{"notes:read offline_access", "notes:read notes:write offline_access"}; !slices.Equal(scopes, want) {
		t.Errorf("asked for %q, want %q", scopes, want)
	}
}

// What the SDK refuses of an issuer, and of a server that names the wrong one.
func TestMCPGoSDKRefuses(t *testing.T) {
	t.Parallel()
	i := startForMCP(t, "", "")
	ada, at := i.Person("ada"), startNotes(t, i, i.URL)
	refused := func(name, at, reason string) {
		t.Helper()
		if _, err := connect(t, i, ada, at, ""); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
	// The certificate is good for that name too, and the document is there.
	another := strings.Replace(i.URL, "127.0.0.1", "localhost", 1)
	refused("a server that names another issuer", startNotes(t, i, another), "does not match issuer URL")
	for lie, reason := range map[issuer.Lie]string{
		issuer.AnotherName: "does not match issuer URL",
		issuer.MixUp:       "does not match expected issuer",
	} {
		if err := i.Tell(lie); err != nil {
			t.Fatal(err)
		}
		refused(string(lie), at, reason)
	}
	if err := i.Tell(issuer.Honest); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, i, ada, at, ""); err != nil {
		t.Errorf("an honest issuer: %v", err)
	}
}

// The server itself takes no token that was not made for it, and says which scope
// is missing.
func TestMCPServerRefuses(t *testing.T) {
	t.Parallel()
	i := startForMCP(t, "", "")
	at := startNotes(t, i, i.URL)
	i.Signet(nil, "resource", "create", "https://orders.example", "--name", "Orders", "--scope", "orders:read")
	var robot struct {
		Secret string `json:"client_secret"`
	}
	i.Signet(&robot, "client", "create", "--id", "robot", "--name", "Robot", "--grant", "client_credentials",
		"--scope", "orders:read", "--scope", "notes:read")
	where := `resource_metadata="` + strings.Replace(at, "/mcp", "/.well-known/oauth-protected-resource/mcp", 1) + `"`
	for _, test := range []struct {
		name, scope, tool string
		status            int
		challenge         string
	}{
		{"no token", "", "list_notes", 401, `Bearer scope="notes:read", ` + where},
		{"a token for another audience", "orders:read", "list_notes", 401,
			`Bearer error="invalid_token", error_description="the access token is for another audience", scope="notes:read", ` + where},
		{"its own", "notes:read", "list_notes", 200, ""},
		{"its own without the scope", "notes:read", "add_note", 403,
			`Bearer error="insufficient_scope", error_description="the access token lacks a scope", scope="notes:read notes:write", ` + where},
	} {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + test.tool + `","arguments":{}}}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		if test.scope != "" {
			req.Header.Set("Authorization", "Bearer "+robotToken(t, i, robot.Secret, test.scope))
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("WWW-Authenticate"); res.StatusCode != test.status || got != test.challenge {
			t.Errorf("%s: %d %s", test.name, res.StatusCode, got)
		}
	}
}

// robotToken gets a token as the client does that acts for itself. The issuer
// notices the resources that were just made within a second.
func robotToken(t *testing.T, i *issuer.Issuer, secret, scope string) string {
	t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.URL+"/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("robot", secret)
		res, err := i.Via.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var token struct {
			AccessToken string `json:"access_token"`
			Error       string
		}
		err = json.NewDecoder(res.Body).Decode(&token)
		res.Body.Close()
		switch {
		case err == nil && token.AccessToken != "":
			return token.AccessToken
		case err != nil || token.Error != "invalid_scope" || time.Since(began) > patience:
			t.Fatalf("token: %d %s %v", res.StatusCode, token.Error, err)
		}
	}
}

// mcpScript is the script that uses one of the official SDKs in JavaScript.
func mcpScript(i *issuer.Issuer, sdk string) script {
	s := script{
		command: []string{node(), "npm/mcp.mjs"},
		env:     []string{"NODE_EXTRA_CA_CERTS=" + i.CAFile},
		steps:   []string{"discovery, registration and sign-in", "a tool", "a tool that needs more", "refresh", "known by its document"},
	}
	switch sdk {
	case "client": // the SDK of the specification 2026-07-28
		s.refuses = map[string]string{
			string(issuer.AnotherName):           `Issuer mismatch in authorization server metadata`,
			string(issuer.MixUp):                 `Issuer mismatch in authorization response`,
			"a server that names another issuer": `Issuer mismatch in authorization server metadata`,
		}
	case "sdk": // the one before, which looks at neither
		s.believes = []issuer.Lie{issuer.AnotherName, issuer.MixUp}
	}
	return s
}

// Clients on the official TypeScript SDKs do the same.
func TestMCPTypeScriptSDK(t *testing.T) {
	t.Parallel()
	for sdk, path := range map[string]string{"sdk": "/tenant/one", "client": ""} {
		t.Run(sdk, func(t *testing.T) {
			t.Parallel()
			database := ""
			if sdk == "client" {
				database = storagetest.Postgres(t)
			}
			i := startForMCP(t, path, database)
			config := map[string]any{"sdk": sdk, "server": startNotes(t, i, i.URL), "redirectURI": agentCallback, "document": publishDocument(i)}
			if sdk == "client" {
				config["wrong"] = startNotes(t, i, strings.Replace(i.URL, "127.0.0.1", "localhost", 1))
			}
			mcpScript(i, sdk).run(t, i, i.Person("ada"), config)
		})
	}
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/clientsecret"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // a check failed, or the run was interrupted
	exitUsage  = 2
)

// run is main with its surroundings passed in; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	o, err := parse(args, stdin, stderr, getenv)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "usage: conformance --issuer URL [flags]; --help lists them")
		fmt.Fprintln(stderr, "conformance:", err)
		return exitUsage
	}
	if o.list {
		for _, c := range o.checks {
			fmt.Fprintf(stdout, "%-32s %s\n", c.ID, c)
		}
		return exitOK
	}
	report := printText(stdout)
	if o.json {
		report = printJSON(stdout)
	}
	if o.markdown {
		report = printMarkdown(stdout, o.checks)
	}
	if o.listen != "" {
		told, _, err := listen(o.listen)
		if err != nil {
			fmt.Fprintln(stderr, "conformance:", err)
			return exitFailed
		}
		defer told.close()
		o.env.told = told
	}
	if err := o.env.readMetadata(ctx); err != nil {
		fmt.Fprintln(stderr, "conformance:", err)
		return exitFailed
	}
	if o.env.clientRefused(ctx) {
		fmt.Fprintln(stderr, "conformance: the credentials of --client-id are refused; checks that need them will fail")
	}
	if slices.ContainsFunc(o.checks, Check.needsPerson) {
		if err := o.env.personRefused(ctx); err != nil {
			fmt.Fprintf(stderr, "conformance: %v; checks that need the person will fail\n", err)
		}
	}
	var n tally
	err = judgeAll(ctx, o.env, o.checks, func(r Result) {
		n.add(r.Outcome)
		report.result(r)
	})
	if err != nil {
		fmt.Fprintln(stderr, "conformance:", err)
		return exitFailed
	}
	report.end(n)
	if n.failed > 0 {
		return exitFailed
	}
	return exitOK
}

// options are the command line, read and validated.
type options struct {
	env      *Env
	checks   []Check
	list     bool
	json     bool
	markdown bool
	listen   string // where the back channel comes in, if it does
}

// passwordVariable names the environment variable with the person's password.
const passwordVariable = "SIGNET_CONFORMANCE_PASSWORD"

// initialTokenVariable names the one with the initial access token.
const initialTokenVariable = "SIGNET_CONFORMANCE_INITIAL_ACCESS_TOKEN"

const usage = `Judge a running issuer against the specifications, from the outside.

  go run ./conformance --issuer http://localhost:8080 --client-id ID --client-secret-file FILE \
      --resource https://orders.example --scope orders:read

With a person who can sign in, the code flow is judged too; pages are filled in as a browser
without scripts would:

  … --username alice --web-client-id ID --web-client-secret-file FILE \
      --redirect-uri https://app.example/cb

A check that lacks a credential or an endpoint is skipped. Secrets come from a file, from
standard input (a line each, in the order of the clients below) or from
SIGNET_CONFORMANCE_CLIENT_SECRET and the like with SECOND_, WEB_ or SECOND_WEB_ before CLIENT.
The password comes from SIGNET_CONFORMANCE_PASSWORD. The web clients need the scopes openid,
profile, email and offline_access, and refresh tokens; with --resource, its --scope too, and with
--protected-resource its --protected-scope, which --client-id needs as well.

With --register the checker registers clients, and removes them, with the initial access token in
SIGNET_CONFORMANCE_INITIAL_ACCESS_TOKEN if registering needs one. With --backchannel-logout-uri it
listens there for what the issuer tells --second-web-client-id of the end of a session.

Flags:
`

// parse reads the command line; its error names everything that is wrong.
func parse(args []string, stdin io.Reader, stderr io.Writer, getenv func(string) string) (options, error) {
	var (
		o                           options
		first, second, web, other   clientsecret.Source
		connectTo, resourceAt, only string
		backChannel                 string
		privateKeyID, privateKeyPEM string
	)
	e := &Env{Now: time.Now}
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.SetOutput(io.Discard) // mistakes are told by run
	f.StringVar(&e.Issuer, "issuer", "", "issuer `URL`, exactly as it is configured")
	f.StringVar(&e.Client.ID, "client-id", "", "confidential client for client_secret_basic and client credentials")
	first.Flags(f, "")
	f.StringVar(&e.Second.ID, "second-client-id", "", "another client like --client-id, no introspector of --resource")
	second.Flags(f, "second-")
	f.StringVar(&e.PublicClientID, "public-client-id", "", "public client")
	f.StringVar(&privateKeyID, "private-key-client-id", "", "client that authenticates with private_key_jwt")
	f.StringVar(&privateKeyPEM, "private-key-file", "", "private key of --private-key-client-id, a JWK or PKCS #8 in PEM, in a `file`")
	f.StringVar(&e.KeyRedirectURI, "private-key-redirect-uri", "", "redirect `URI` of --private-key-client-id, where people sign in to it too; it sends signed request objects")
	f.StringVar(&e.Resource, "resource", "", "resource `URI` that --client-id may ask for")
	f.StringVar(&e.Scope, "scope", "", "scope of --resource")
	f.StringVar(&e.Person.Username, "username", "", "who can sign in, as it is typed; the password is in "+passwordVariable)
	f.StringVar(&e.Web.ID, "web-client-id", "", "confidential client with client_secret_basic that people sign in to")
	web.Flags(f, "web-")
	f.StringVar(&e.Web.RedirectURI, "redirect-uri", "", "redirect `URI` of --web-client-id; nothing has to answer there")
	f.StringVar(&e.PostLogoutURI, "post-logout-redirect-uri", "", "post-logout redirect `URI` of --web-client-id")
	f.StringVar(&e.SecondWeb.ID, "second-web-client-id", "", "another client like --web-client-id, with the same redirect URI, which may do without PKCE")
	other.Flags(f, "second-web-")
	f.StringVar(&e.Native.ID, "native-client-id", "", "public client on the person's device")
	f.StringVar(&e.Native.RedirectURI, "native-redirect-uri", "http://127.0.0.1/callback", "loopback redirect `URI` of --native-client-id, as registered")
	f.StringVar(&backChannel, "backchannel-logout-uri", "", "`URI` with which --second-web-client-id is registered for Back-Channel Logout; the checker listens there")
	f.StringVar(&o.listen, "backchannel-listen", "", "`HOST:PORT` to listen at instead, for a URI that somebody else passes on from")
	f.StringVar(&e.FrontChannelURI, "frontchannel-logout-uri", "", "`URI` with which --second-web-client-id is registered for Front-Channel Logout, iss and sid required; nothing has to answer there")
	f.BoolVar(&e.Register, "register", false, "register clients; the initial access token is in "+initialTokenVariable+" if one is needed")
	f.StringVar(&e.Protected, "protected-resource", "", "`URI` of an API that takes the issuer's tokens: its identifier, and where GET is answered to who has the scope")
	f.StringVar(&e.ProtectedScope, "protected-scope", "", "scope of --protected-resource that GET there asks for")
	f.StringVar(&e.StepUp, "step-up", "", "`URI` of the API that wants a person to have signed in, in a way it says (RFC 9470)")
	f.StringVar(&e.Pages.Username, "username-field", "username", "`id` or name of the field for the username on the sign-in page")
	f.StringVar(&e.Pages.Password, "password-field", "password", "`id` or name of the field for the password")
	f.StringVar(&e.Pages.Allow, "allow-button", "allow", "`id`, name or value of the button that consents")
	f.StringVar(&e.Pages.Deny, "deny-button", "deny", "`id`, name or value of the button that refuses; also the id or last path segment of a link")
	f.StringVar(&e.Pages.Account, "account-button", "continue", "`id`, name or value of the button that goes on with the account signed in")
	f.StringVar(&e.Pages.Logout, "logout-button", "submit", "`id`, name or value of the button that signs out")
	f.StringVar(&connectTo, "connect-to", "", "connect to `HOST:PORT` in place of the issuer's host")
	f.StringVar(&resourceAt, "resource-connect-to", "", "connect to `HOST:PORT` in place of the protected resource's host")
	f.BoolVar(&e.AllowHTTP, "insecure-http", false, "accept plain http although the host is not loopback")
	f.StringVar(&only, "only", "", "run only checks whose id or line matches the `regexp`")
	f.BoolVar(&o.list, "list", false, "list the checks and end")
	f.BoolVar(&o.json, "json", false, "report as JSON")
	f.BoolVar(&o.markdown, "markdown", false, "report as tables in Markdown, by specification")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(stderr)
			fmt.Fprint(stderr, usage)
			f.PrintDefaults()
		}
		return options{}, err
	}
	var faults []error
	if f.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	match, err := regexp.Compile(only)
	if err != nil {
		return options{}, errors.Join(append(faults, fmt.Errorf("--only: %w", err))...)
	}
	for _, c := range checks() {
		if match.MatchString(c.ID) || match.MatchString(c.String()) {
			o.checks = append(o.checks, c)
		}
	}
	if len(o.checks) == 0 {
		faults = append(faults, errors.New("--only: no check matches"))
	}
	if o.list {
		return o, errors.Join(faults...)
	}

	issuer, err := url.Parse(e.Issuer)
	if err != nil || e.secureURL(e.Issuer) != nil || issuer.RawQuery != "" {
		faults = append(faults, errors.New("--issuer: want an https URL without query and fragment (http on loopback)"))
	} else {
		to := map[string]string{hostPort(issuer): connectTo}
		if api, err := url.Parse(e.Protected); err == nil && resourceAt != "" {
			to[hostPort(api)] = resourceAt
		}
		e.HTTP = newHTTPClient(to)
	}
	for _, given := range []struct{ flag, uri string }{
		{"--backchannel-logout-uri", backChannel}, {"--protected-resource", e.Protected}, {"--step-up", e.StepUp},
	} {
		if given.uri != "" && e.secureURL(given.uri) != nil {
			faults = append(faults, fmt.Errorf("%s: want an https URL (http on loopback)", given.flag))
		}
	}
	switch u, err := url.Parse(backChannel); {
	case backChannel == "":
		o.listen = ""
	case err == nil && o.listen == "":
		o.listen = hostPort(u)
	}
	e.InitialToken = getenv(initialTokenVariable)
	lines := bufio.NewReader(stdin)
	if e.Client.Secret, err = first.Read(lines, getenv); err != nil {
		faults = append(faults, err)
	}
	if e.Second.Secret, err = second.Read(lines, getenv); err != nil {
		faults = append(faults, err)
	}
	if e.Web.Secret, err = web.Read(lines, getenv); err != nil {
		faults = append(faults, err)
	}
	if e.SecondWeb.Secret, err = other.Read(lines, getenv); err != nil {
		faults = append(faults, err)
	}
	e.SecondWeb.RedirectURI = e.Web.RedirectURI
	if e.Person.Password = getenv(passwordVariable); e.Person.Username != "" && e.Person.Password == "" {
		faults = append(faults, errors.New("--username: "+passwordVariable+" has no password"))
	}
	if (privateKeyID == "") != (privateKeyPEM == "") {
		faults = append(faults, errors.New("--private-key-client-id and --private-key-file belong together"))
	} else if privateKeyID != "" {
		if b, err := os.ReadFile(privateKeyPEM); err != nil {
			faults = append(faults, fmt.Errorf("--private-key-file: %w", err))
		} else if e.KeyClient, err = newKeyClient(privateKeyID, b); err != nil {
			faults = append(faults, fmt.Errorf("--private-key-file: %w", err))
		}
	}
	o.env = e
	return o, errors.Join(faults...)
}

// tally counts outcomes.
type tally struct{ passed, failed, skipped int }

func (n *tally) add(o Outcome) {
	switch o {
	case Passed:
		n.passed++
	case Failed:
		n.failed++
	case Skipped:
		n.skipped++
	}
}

// A reporter writes results as they come, and the end.
type reporter struct {
	result func(Result)
	end    func(tally)
}

// printText tells a reason to skip once, with the first check it holds for, and
// at the end how many more there were.
func printText(w io.Writer) reporter {
	skipped := map[string]int{}
	return reporter{
		result: func(r Result) {
			switch r.Outcome {
			case Failed:
				fmt.Fprintf(w, "%s %s: %s\n", r.Outcome, r.Check, r.Reason)
			case Skipped:
				if skipped[r.Reason]++; skipped[r.Reason] == 1 {
					fmt.Fprintf(w, "%s %s (%s)\n", r.Outcome, r.Check, r.Reason)
				}
			default:
				fmt.Fprintf(w, "%s %s\n", r.Outcome, r.Check)
			}
		},
		end: func(n tally) {
			for _, reason := range slices.Sorted(maps.Keys(skipped)) {
				if more := skipped[reason] - 1; more > 0 {
					fmt.Fprintf(w, "%s %d more (%s)\n", Skipped, more, reason)
				}
			}
			fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped)
		},
	}
}

// jsonResult is a Result as --json shows it.
type jsonResult struct {
	ID      string  `json:"id"`
	Spec    string  `json:"spec"`
	Section string  `json:"section"`
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
}

func printJSON(w io.Writer) reporter {
	var items []jsonResult
	return reporter{
		result: func(r Result) {
			items = append(items, jsonResult{r.ID, r.Spec, r.Section, r.Name, r.Outcome, r.Reason})
		},
		end: func(n tally) {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			// A report that cannot be written shows at whoever reads it.
			_ = enc.Encode(map[string]any{
				"items": items, "passed": n.passed, "failed": n.failed, "skipped": n.skipped,
			})
		},
	}
}

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// Exit statuses.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitExists      = 4
	exitUnavailable = 5
)

// failure is an error as the operator is told it.
type failure struct {
	status  int
	code    string
	message string
	fix     string
	faults  []provider.Fault
}

func (f *failure) Error() string { return f.message }

// usage says that the command line cannot be followed.
func usage(message, fix string) error {
	return &failure{status: exitUsage, code: "usage", message: message, fix: fix}
}

// explain is the one table from errors to exit statuses.
func explain(err error) *failure {
	var f *failure
	var invalid *provider.InvalidError
	var object *provider.ObjectError
	var parse *kong.ParseError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &invalid):
		return explainFaults(invalid.Faults)
	case errors.As(err, &object) && errors.Is(object, storage.ErrNotFound):
		noun, _, _ := strings.Cut(object.Noun, " ")
		if noun == "initial" {
			noun = "client initial-access-token"
		}
		return &failure{status: exitNotFound, code: "not_found", message: object.Error(),
			fix: fmt.Sprintf("`signet %s list` shows what there is", noun)}
	case errors.As(err, &object):
		return &failure{status: exitExists, code: "exists", message: object.Error(), fix: "choose another name, or change the one there is"}
	case errors.Is(err, storage.ErrUnavailable):
		return explainUnavailable(err)
	case errors.Is(err, sqlite.ErrDamaged):
		return &failure{status: exitUnavailable, code: "damaged", message: oneLine(err.Error()),
			fix: "stop `signet serve`, and put a backup in its place with `signet restore FILE`, which keeps what is there"}
	case errors.Is(err, context.Canceled):
		return &failure{status: exitFailed, code: "interrupted", message: "interrupted"}
	case errors.Is(err, migrations.ErrNewer):
		return &failure{status: exitUnavailable, code: "schema_newer", message: err.Error(),
			fix: "run a release at least as new as the one that migrated it, or restore a backup made before"}
	case errors.Is(err, keys.ErrWrongKEK):
		return &failure{status: exitUnavailable, code: "wrong_key", message: err.Error(), fix: "give the key-encryption key this database was made with (--kek-file)"}
	case errors.Is(err, keys.ErrAltered):
		return &failure{status: exitUnavailable, code: "altered", message: oneLine(err.Error()),
			fix: "somebody else can write to the database; delete those rows once you know how, or restore a backup"}
	case errors.As(err, &parse):
		return &failure{status: exitUsage, code: "usage", message: parse.Error(), fix: fmt.Sprintf("`%s --help` shows how", helpPath(parse))}
	default:
		return &failure{status: exitFailed, code: "failed", message: err.Error()}
	}
}

// explainUnavailable says in one line why there is no database, and what would
// help. Drivers tell the same on many lines and within many others.
func explainUnavailable(err error) *failure {
	f := &failure{status: exitUnavailable, code: "unavailable", fix: "see that the database is up and --database names it"}
	var server interface { // PostgreSQL's own answer
		error
		SQLState() string
	}
	var lookup *net.DNSError
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &server):
		f.message = "PostgreSQL: " + oneLine(server.Error())
		switch server.SQLState() {
		case "28P01": // invalid_password; said of a role that does not exist as well
			f.fix = "check the user and the password in --database, PGPASSWORD or ~/.pgpass"
		case "28000": // invalid_authorization_specification
			f.fix = "make the role with `createuser`, or let pg_hba.conf admit it from here"
		case "3D000": // invalid_catalog_name
			f.fix = "make the database with `createdb`, or name another with --database"
		}
	case errors.As(err, &certificate):
		f.message, f.fix = "the database's certificate is not accepted: "+oneLine(certificate.Err.Error()), "name the host that it is for in --database, and the authority's certificate with sslrootcert=FILE in it"
	case strings.Contains(err.Error(), "server refused TLS connection"): // the driver has no error of its own for it
		f.message, f.fix = "the database's server does not speak TLS, which sslmode in --database demands", "turn on ssl in postgresql.conf; sslmode=disable is for a server on this machine"
	case errors.As(err, &lookup):
		f.message, f.fix = fmt.Sprintf("the database's host %q is not known", lookup.Name), "check the host in --database"
	case errors.As(err, &network) && network.Addr != nil:
		reason := "no answer in time"
		if !network.Timeout() {
			reason = innermost(network).Error()
		}
		f.message = fmt.Sprintf("cannot reach the database at %s: %s", network.Addr, reason)
	default:
		f.message = oneLine(err.Error())
	}
	return f
}

// innermost returns the error that the others are wrapped around.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func helpPath(err *kong.ParseError) string {
	if node := err.Context.Selected(); node != nil {
		return node.FullPath()
	}
	return "signet"
}

// flagOf names the flag behind a parameter, where they differ.
func flagOf(field string) string {
	name, value, _ := strings.Cut(field, " ")
	switch name {
	case "client_id":
		name = "--id"
	case "client_name", "resource_name":
		name = "--name"
	case "grant_types":
		name = "--grant"
	case "token_endpoint_auth_method":
		name = "--auth-method"
	case "redirect_uris":
		name = "--redirect-uri"
	case "post_logout_redirect_uris":
		name = "--post-logout-redirect-uri"
	case "scope":
		name = "--scope"
	case "roles":
		name = "--role"
	case "introspectors":
		name = "--introspector"
	case "jwks":
		name = "--jwks-file"
	case "id_token_signed_response_alg":
		name = "--id-token-alg"
	case "name", "jti", "jwks_uri", "refresh_window", "require_pkce", "backchannel_logout_uri", "frontchannel_logout_uri", "token_lifetime", "alg", "overlap", "email", "email_verified":
		name = "--" + strings.ReplaceAll(name, "_", "-")
	}
	if value != "" {
		name += " " + value
	}
	return name
}

func explainFaults(faults []provider.Fault) *failure {
	flags := strings.NewReplacer("token_endpoint_auth_method", "--auth-method", "jwks_uri", "--jwks-uri", "(jwks)", "(--jwks-file)")
	f := &failure{status: exitUsage, code: "invalid", faults: make([]provider.Fault, len(faults))}
	var messages, fixes []string
	for i, fault := range faults {
		fault.Field, fault.Fix = flagOf(fault.Field), flags.Replace(fault.Fix)
		f.faults[i] = fault
		messages = append(messages, fault.Field+" "+fault.Problem)
		if fault.Fix != "" {
			fixes = append(fixes, fault.Fix)
		}
	}
	f.message, f.fix = strings.Join(messages, "; "), strings.Join(fixes, "; ")
	return f
}

// report writes the error to w and returns the exit status.
func report(w io.Writer, err error, asJSON bool) int {
	f := explain(err)
	if asJSON {
		type fault struct {
			Field   string `json:"field"`
			Problem string `json:"problem"`
			Fix     string `json:"fix,omitempty"`
		}
		var body struct {
			Error struct {
				Code    string  `json:"code"`
				Message string  `json:"message"`
				Fix     string  `json:"fix"`
				Faults  []fault `json:"faults,omitempty"`
			} `json:"error"`
		}
		body.Error.Code, body.Error.Message, body.Error.Fix = f.code, f.message, f.fix
		for _, one := range f.faults {
			body.Error.Faults = append(body.Error.Faults, fault(one))
		}
		_ = writeJSON(w, body) // there is nowhere left to report to
		return f.status
	}
	if len(f.faults) > 1 {
		fmt.Fprintf(w, "signet: %d things are wrong\n", len(f.faults))
		for _, one := range f.faults {
			fmt.Fprintf(w, "  %s\n", one)
		}
		return f.status
	}
	fmt.Fprintf(w, "signet: %s\n", f.message)
	if f.fix != "" {
		fmt.Fprintf(w, "  %s\n", f.fix)
	}
	return f.status
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// print writes a result: v as JSON, or whatever human writes, in columns.
func (a *app) print(v any, human func(w io.Writer)) error {
	if a.common.JSON {
		return writeJSON(a.stdout, v)
	}
	var text strings.Builder
	human(&text)
	if _, err := io.WriteString(a.stdout, align(text.String())); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

// confirm says what a command is about to do, and asks for it unless yes says so already.
func (a *app) confirm(ctx context.Context, yes bool, command, consequences string) error {
	if yes {
		a.log.Info(consequences)
		return nil
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return usage("there is no terminal to ask on. "+consequences, "read `"+command+" --help`, then add --yes")
	}
	fmt.Fprintf(a.stderr, "%s\nWrite yes to go on: ", consequences)
	line, err := unlessInterrupted(ctx, func() (string, error) { return bufio.NewReader(io.LimitReader(a.stdin, 64)).ReadString('\n') })
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return &failure{status: exitFailed, code: "refused", message: "nothing was changed"}
	}
	return nil
}

// field writes one line of a description; an empty value is left out.
func field(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "  %s\t%s\n", name, value)
	}
}

func words(list []string) string { return strings.Join(list, " ") }

// sorted returns the list in order; scopes have none of their own.
func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

// counted is a number of things, as "1 key" or "2 keys".
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// mark names what is set; it is how people read booleans.
func mark(set bool, yes, no string) string {
	if set {
		return yes
	}
	return no
}

// instant is a time as JSON has it: RFC 3339, UTC, whole seconds, null for never.
type instant time.Time

func (t instant) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.String() + `"`), nil
}

func (t instant) String() string {
	if time.Time(t).IsZero() {
		return ""
	}
	return time.Time(t).UTC().Format(time.RFC3339)
}

// listFlags bound a listing.
type listFlags struct {
	Limit int    `default:"100" placeholder:"N" help:"At most so many (${default})."`
	After string `placeholder:"NEXT" help:"Go on after the next of the listing before."`
}

// list is a listing as JSON has it. Next is null at the end.
type list[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"`
}

// page reads one row more than asked for, to know whether there are more.
func page[Row, T any](f listFlags, read func(storage.Page) ([]Row, error), key func(Row) string, view func(Row) T) (list[T], error) {
	if f.Limit < 1 || f.Limit > 1000 {
		return list[T]{}, usage("--limit is out of range", "choose 1 to 1000")
	}
	rows, err := read(storage.Page{After: f.After, Limit: f.Limit + 1})
	if err != nil {
		return list[T]{}, err
	}
	l := list[T]{Items: []T{}}
	if len(rows) > f.Limit {
		rows = rows[:f.Limit]
		next := key(rows[len(rows)-1])
		l.Next = &next
	}
	for _, row := range rows {
		l.Items = append(l.Items, view(row))
	}
	return l, nil
}

// none tells people that a listing is empty. noun is also the command's name.
func (f listFlags) none(w io.Writer, noun string) {
	if f.After != "" {
		fmt.Fprintf(w, "No %ss after %q.\n", noun, f.After)
		return
	}
	fmt.Fprintf(w, "No %ss yet; `signet %s create --help` shows how to make one.\n", noun, noun)
}

// more tells people that a listing goes on.
func more[T any](w io.Writer, l list[T]) {
	if l.Next != nil {
		fmt.Fprintf(w, "\nThere is more: --after %q\n", *l.Next)
	}
}

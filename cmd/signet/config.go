package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

// common are the settings of every command. They and those of serve come from
// the command line, else from SIGNET_<FLAG>, else from the file.
type common struct {
	Config          string `group:"settings" placeholder:"FILE" help:"YAML file with any of these settings, each under its flag's name."`
	Database        string `group:"settings" placeholder:"URL" help:"postgres://… or sqlite:///path, whose folder has to exist. Without it: signet.db in the data directory."`
	Data            string `group:"settings" placeholder:"DIR" help:"Data directory, made when it is needed. Without it: signet in $$XDG_DATA_HOME or ~/.local/share. As a flag it wins over a database of the environment or the file."`
	KEKFile         string `group:"settings" name:"kek-file" placeholder:"FILE" help:"File with the key-encryption key, 32 bytes raw or in base64. Without it, beside a SQLite database one is made."`
	KEKFD           string `group:"settings" name:"kek-fd" placeholder:"N" help:"File descriptor to read the key-encryption key from."`
	KEKCommand      string `group:"settings" name:"kek-command" placeholder:"CMD" help:"Command that prints the key-encryption key."`
	KEKPreviousFile string `group:"settings" name:"kek-previous-file" placeholder:"FILE" help:"File with the key-encryption key before this one, while it is being replaced."`
	JSON            bool   `group:"settings" help:"Write results and errors as JSON."`
}

// serveFlags are the settings of serve as they are typed. They are text, so
// that validate can report everything that is wrong with them at once.
type serveFlags struct {
	Issuer              string   `placeholder:"URL" help:"Issuer identifier: the https URL this provider is reached by."`
	Listen              string   `default:"127.0.0.1:8080" placeholder:"ADDR" help:"Address to serve on (${default}). Port 0 takes a free one."`
	AdminListen         string   `default:"127.0.0.1:8081" placeholder:"ADDR" help:"Address for health and metrics (${default})."`
	TLSCert             string   `name:"tls-cert" placeholder:"FILE" help:"Certificate chain in PEM. Without it a proxy has to speak TLS."`
	TLSKey              string   `name:"tls-key" placeholder:"FILE" help:"Private key of the certificate."`
	TrustedProxy        []string `placeholder:"CIDR" help:"Address of a proxy whose X-Forwarded-For is believed, as 10.0.0.5/32; may repeat. Never the network that clients are in: whoever is trusted chooses the address that logs and limits go by."`
	OutboundAllow       []string `placeholder:"CIDR" help:"Private network that may be called at what an operator registered for clients: keys, request objects, sectors, logouts; may repeat."`
	RevocationFeedScope string   `placeholder:"SCOPE" help:"Scope an access token needs to follow the revocation feed. Without it anybody may: it holds hashes."`
	Registration        string   `default:"off" placeholder:"MODE" help:"Who may register clients at /register (RFC 7591): off (default), token for who has an initial access token, open for anybody."`
	RegistrationScope   []string `placeholder:"SCOPE" help:"Scope of a resource for clients which register themselves, or have a metadata document, beside those of OpenID Connect; may repeat."`
	RegistrationNoPKCE  bool     `name:"registration-without-pkce" help:"Let confidential clients that register themselves do without PKCE, which the certification plan for registration does."`
	Documents           string   `name:"client-id-metadata-documents" default:"off" placeholder:"MODE" help:"Whose URLs are accepted as client_id, with the client's metadata at it: off (default), listed for those of --client-id-metadata-host, open for anybody's."`
	DocumentHost        []string `name:"client-id-metadata-host" placeholder:"HOST" help:"Host, as claude.ai, whose clients are known by their metadata documents; may repeat."`
	DocumentLoopback    bool     `name:"client-id-metadata-loopback" help:"Let metadata documents be on this machine, for development with an issuer on localhost."`
	Migrate             bool     `help:"Bring a PostgreSQL schema up to date first. SQLite's always is."`
	LogLevel            string   `default:"info" placeholder:"LEVEL" help:"What to log: debug, info, warn or error (${default}). debug adds requests that only fetch what is the same for everybody."`
	AuditRetention      string   `default:"8760h" placeholder:"DUR" help:"How long audit events are kept (${default}, a year), at least 24h; 0 for ever."`
	Drain               string   `default:"15s" placeholder:"DUR" help:"How long requests under way may take after TERM (${default})."`
}

// Config is everything serve needs, validated.
type Config struct {
	Database       databaseURL
	KEK            kekSource
	Issuer         provider.Issuer
	Listen         string
	AdminListen    string
	TLSCert        string // file; "" together with TLSKey: no TLS
	TLSKey         string
	TrustedProxies []netip.Prefix
	OutboundAllow  []netip.Prefix
	FeedScope      string // "": the revocation feed is open
	Registration   provider.Registration
	Documents      provider.Documents
	Migrate        bool // also on PostgreSQL
	LogLevel       slog.Level
	AuditRetention time.Duration // 0: for ever
	Drain          time.Duration
	Traces         bool
}

// databaseURL says which database: SQLite's file or PostgreSQL's URL.
type databaseURL struct {
	sqlite   string // path of the file
	postgres string // with the password in it: never to be shown
	folder   bool   // SQLite's folder is the data directory, which may be made
}

// String names the database for people and logs, without a password.
func (u databaseURL) String() string {
	if u.sqlite != "" {
		return u.sqlite
	}
	return redacted(u.postgres)
}

// kekSource says where the key-encryption key comes from; at most one of
// text, file, fd and command is set.
type kekSource struct {
	text     string // from the environment
	file     string
	fd       int // -1: none
	command  string
	previous string // file
}

// addFault notes what is wrong with a setting and what to do about it.
type addFault func(field, problem, fix string)

// validate returns the configuration of serve, or every fault in it together
// with those of the environment and the file.
func (f serveFlags) validate(a *app) (Config, error) {
	faults := provider.InvalidError{Faults: slices.Clone(a.settings.faults.Faults)}
	bad := faults.Add
	c := Config{Listen: f.Listen, AdminListen: f.AdminListen, TLSCert: f.TLSCert, TLSKey: f.TLSKey, FeedScope: f.RevocationFeedScope, Migrate: f.Migrate}
	c.Database, c.KEK = a.common.database(bad), a.common.kek(bad)
	var err error
	if f.Issuer != "" {
		if c.Issuer, err = provider.ParseIssuer(f.Issuer); err != nil {
			bad("--issuer", issuerProblem(f.Issuer, err), "")
		}
	} else if !a.settings.mayHave("issuer") {
		bad("--issuer", "is missing", "give the URL this provider is reached by, as https://login.example.com")
	}
	checkAddress("--listen", f.Listen, bad)
	checkAddress("--admin-listen", f.AdminListen, bad)
	if _, port, _ := net.SplitHostPort(f.Listen); f.Listen == f.AdminListen && port != "0" {
		bad("--admin-listen", "is the address of --listen", "choose another port")
	}
	if (f.TLSCert == "") != (f.TLSKey == "") {
		bad("--tls-cert", "and --tls-key go together", "give both, or neither behind a proxy that speaks TLS")
	}
	for _, file := range []struct{ flag, path string }{{"--tls-cert", f.TLSCert}, {"--tls-key", f.TLSKey}} {
		if file.path == "" {
			continue
		}
		if _, err := os.Stat(file.path); err != nil {
			bad(file.flag, fmt.Sprintf("cannot be read: %v", errors.Unwrap(err)), "check the path "+file.path)
		}
	}
	c.TrustedProxies = parsePrefixes("--trusted-proxy", f.TrustedProxy, bad)
	for _, p := range c.TrustedProxies {
		if p.Bits() == 0 {
			bad("--trusted-proxy", fmt.Sprintf("%q is everybody, who would choose the address that logs and limits go by", p), "name each proxy by its address, as 10.0.0.5/32")
		}
	}
	c.OutboundAllow = parsePrefixes("--outbound-allow", f.OutboundAllow, bad)
	if c.FeedScope != "" && !provider.ValidScope(c.FeedScope) {
		bad("--revocation-feed-scope", fmt.Sprintf("%q is not a scope", c.FeedScope), "write one word, as revocations:read")
	}
	c.Registration = provider.Registration{Mode: provider.RegistrationMode(f.Registration), Scopes: f.RegistrationScope, WithoutPKCE: f.RegistrationNoPKCE}
	switch c.Registration.Mode {
	case provider.RegistrationOff, provider.RegistrationToken, provider.RegistrationOpen:
	default:
		bad("--registration", fmt.Sprintf("%q is no mode", f.Registration), "choose off, token or open")
	}
	for _, s := range f.RegistrationScope {
		if !provider.ValidScope(s) {
			bad("--registration-scope", fmt.Sprintf("%q is not a scope", s), "write one word, as orders:read, and repeat the flag for more")
		}
	}
	c.Documents = f.documents(c.Issuer, bad)
	if err := c.LogLevel.UnmarshalText([]byte(f.LogLevel)); err != nil {
		bad("--log-level", fmt.Sprintf("%q is no level", f.LogLevel), "choose debug, info, warn or error")
	}
	if c.AuditRetention, err = time.ParseDuration(f.AuditRetention); err != nil || c.AuditRetention != 0 && c.AuditRetention < 24*time.Hour {
		bad("--audit-retention", fmt.Sprintf("%q is not a duration of at least 24h, nor 0", f.AuditRetention), "write it as 8760h, which is a year")
	}
	if c.Drain, err = time.ParseDuration(f.Drain); err != nil || c.Drain < 0 {
		bad("--drain", fmt.Sprintf("%q is not a duration", f.Drain), "write it as 15s or 1m")
	}
	c.Traces = traces(bad)
	return c, faults.Err()
}

// documents returns the policy for client ID metadata documents.
func (f serveFlags) documents(issuer provider.Issuer, bad addFault) provider.Documents {
	d := provider.Documents{Mode: provider.DocumentMode(f.Documents), Hosts: f.DocumentHost, Loopback: f.DocumentLoopback}
	switch d.Mode {
	case provider.DocumentsOff, provider.DocumentsListed, provider.DocumentsOpen:
	default:
		bad("--client-id-metadata-documents", fmt.Sprintf("%q is no mode", f.Documents), "choose off, listed or open")
		return d
	}
	for _, host := range d.Hosts {
		if !provider.ValidHost(host) {
			bad("--client-id-metadata-host", fmt.Sprintf("%q is not a host", host), "write it in lower case without scheme, port or path, as claude.ai")
		}
	}
	if listed := d.Mode == provider.DocumentsListed; listed && len(d.Hosts) == 0 {
		bad("--client-id-metadata-documents", "is listed, and no host is", "name each with --client-id-metadata-host")
	} else if !listed && len(d.Hosts) > 0 {
		bad("--client-id-metadata-host", "has no effect unless --client-id-metadata-documents is listed", "serve with listed, or leave it out")
	}
	if d.Loopback && f.Issuer != "" && !issuer.Loopback() {
		bad("--client-id-metadata-loopback", "is for development, and the issuer is not on this machine", "leave it out")
	}
	return d
}

// notes returns what is not wrong with the configuration, and yet seldom meant.
func (c Config) notes() []provider.Fault {
	var notes provider.InvalidError
	for _, p := range c.TrustedProxies {
		large := p.Bits() < 24
		if p.Addr().Is6() {
			large = p.Bits() < 64
		}
		if large && !p.Addr().IsLoopback() {
			notes.Add("--trusted-proxy", fmt.Sprintf("%s is a large network: everybody in it chooses the address that logs and limits go by", p), "name each proxy by its address, as 10.0.0.5/32")
		}
	}
	if c.Registration.Mode == provider.RegistrationOff && c.Documents.Mode == provider.DocumentsOff && len(c.Registration.Scopes) > 0 {
		notes.Add("--registration-scope", "has no effect while registration is off", "serve with --registration token or open, or with --client-id-metadata-documents, or leave it out")
	}
	return notes.Faults
}

// unowned returns the scopes of --registration-scope that no resource has.
func (c Config) unowned(ctx context.Context, r storage.Reader) ([]provider.Fault, error) {
	scopes, err := provider.UnownedScopes(ctx, r, c.Registration.Scopes)
	var faults provider.InvalidError
	for _, scope := range scopes {
		faults.Add("--registration-scope", fmt.Sprintf("%q is a scope of no resource, so nobody gets it", scope), "correct it, or make the resource first: `signet resource create URI --name NAME --scope "+scope+"`")
	}
	return faults.Faults, err
}

// issuerProblem says why value is no issuer identifier, without what may be a
// password in it.
func issuerProblem(value string, err error) string {
	u, parse := url.Parse(value)
	if parse != nil {
		return "is not a URL"
	}
	return fmt.Sprintf("%q cannot be used: %s", u.Redacted(), strings.TrimPrefix(err.Error(), "issuer: "))
}

// single finds values that are several in one: none of what it is asked about
// has a space or a comma in it.
func single(bad addFault, flag string, values []string) {
	for _, v := range values {
		if strings.ContainsAny(v, " ,") {
			bad(fmt.Sprintf("%s %q", flag, v), "has a space or a comma", "repeat "+flag+", once for each")
		}
	}
}

// database returns which database the settings mean.
func (c common) database(bad addFault) databaseURL {
	const fix = "write postgres://user@host/name or sqlite:///path/to/signet.db"
	switch scheme, _, _ := strings.Cut(c.Database, ":"); {
	case c.Database == "":
		dir := c.Data
		if dir == "" {
			dir = defaultData()
		}
		if dir == "" {
			bad("--data", "is missing and there is no home directory to choose one in", "give a directory or --database")
		}
		return databaseURL{sqlite: filepath.Join(dir, "signet.db"), folder: true}
	case scheme == "postgres" || scheme == "postgresql":
		if _, err := url.Parse(c.Database); err != nil {
			bad("--database", "is not a URL", fix) // the error would show the password
		}
		return databaseURL{postgres: c.Database}
	case scheme == "sqlite":
		u, err := url.Parse(c.Database)
		if err != nil || u.Host != "" || u.RawQuery != "" || u.Fragment != "" || u.Path == "" || strings.HasSuffix(u.Path, "/") {
			bad("--database", "is not sqlite: with three slashes and a file", fix)
			return databaseURL{}
		}
		return databaseURL{sqlite: filepath.Clean(u.Path)}
	default:
		bad("--database", "is neither a postgres: nor a sqlite: URL", fix)
		return databaseURL{}
	}
}

// defaultData returns where the XDG base directory specification has a
// program's data, or "" when there is no home. It does not depend on the
// working directory, so that every command finds the database of serve.
func defaultData() string {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "signet")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "signet")
}

// kek returns where the settings say the key-encryption key is.
func (c common) kek(bad addFault) kekSource {
	source := kekSource{text: os.Getenv("SIGNET_KEK"), file: c.KEKFile, fd: -1, command: c.KEKCommand, previous: c.KEKPreviousFile}
	var given []string
	for _, s := range []struct{ name, value string }{
		{"--kek-file", c.KEKFile}, {"--kek-fd", c.KEKFD}, {"--kek-command", c.KEKCommand}, {"SIGNET_KEK", source.text},
	} {
		if s.value != "" {
			given = append(given, s.name)
		}
	}
	if len(given) > 1 {
		bad(given[0], "and "+strings.Join(given[1:], " and ")+" exclude each other", "give the key-encryption key in one way")
	}
	if c.KEKFD != "" {
		fd, err := strconv.ParseUint(c.KEKFD, 10, 16)
		if err != nil || fd == 1 || fd == 2 {
			bad("--kek-fd", fmt.Sprintf("%q is not a file descriptor to read from", c.KEKFD), "write a number, as 3")
		}
		source.fd = int(fd)
	}
	return source
}

func checkAddress(flag, address string, bad addFault) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		bad(flag, fmt.Sprintf("%q is not host:port", address), "write it as 127.0.0.1:8080 or :8080")
	}
}

func parsePrefixes(flag string, list []string, bad addFault) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			bad(flag, fmt.Sprintf("%q is not a network", s), "write an address as 10.1.2.3/32, a network as 10.1.2.0/24")
			continue
		}
		if p != p.Masked() {
			bad(flag, fmt.Sprintf("%q has bits beyond its length", s), fmt.Sprintf("write %s for this address, %s for its network", netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), p.Masked()))
			continue
		}
		prefixes = append(prefixes, p)
	}
	return prefixes
}

// settings fills in, for the parser, what the command line leaves out: from
// the environment, then from the file. It collects faults instead of ending
// at the first, so that they are reported together.
type settings struct {
	known  []string // names of the flags that may come from here
	file   map[string]*yaml.Node
	faults provider.InvalidError
	read   bool
	unread bool     // the file could not be taken in at all
	meant  []string // settings that were probably meant by what is wrong in it
}

// mayHave says whether a setting that seems to be missing may be one of those
// that could not be read; then it is not worth a fault of its own.
func (s *settings) mayHave(name string) bool { return s.unread || slices.Contains(s.meant, name) }

// variable returns the environment variable of a setting.
func variable(name string) string {
	return "SIGNET_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// describe is the help of a flag, with its environment variable.
func (s *settings) describe(v *kong.Value) string {
	if !slices.Contains(s.known, v.Name) || v.Flag == nil {
		return v.Help
	}
	return v.Help + " [" + variable(v.Name) + "]"
}

// warn tells of variables in the environment that look like a misspelt setting.
func (s *settings) warn(log *slog.Logger) {
	const near = 2 // letters
	known := append(slices.Clone(s.known), "kek")
	for _, entry := range sorted(os.Environ()) {
		name, _, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, "SIGNET_")
		if !ours {
			continue
		}
		setting := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		if best := nearest(setting, known); best != setting && distance(setting, best) <= near {
			log.Warn(name + " is no setting; did you mean " + variable(best) + "?")
		}
	}
}

func newSettings() (*settings, error) {
	k, err := kong.New(&struct {
		common
		serveFlags
	}{}, kong.Vars{})
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	s := &settings{}
	for _, flag := range k.Model.Flags {
		if flag.Name != "help" {
			s.known = append(s.known, flag.Name)
		}
	}
	return s, nil
}

// Validate is part of kong.Resolver.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve returns the value of a flag that is not on the command line, or nil.
func (s *settings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !slices.Contains(s.known, flag.Name) {
		return nil, nil
	}
	if flag.Name == "database" && onCommandLine(ctx, "data") {
		return nil, nil // a flag wins over the environment and the file, though it says the same in another way
	}
	if text, ok := os.LookupEnv(variable(flag.Name)); ok {
		return s.typed(variable(flag.Name), flag, text), nil
	}
	if flag.Name == "config" {
		return nil, nil
	}
	s.readFile(ctx)
	node, ok := s.file[flag.Name]
	switch {
	case !ok:
		return nil, nil
	case node.Kind == yaml.ScalarNode:
		return s.typed(flag.Name, flag, node.Value), nil
	case node.Kind == yaml.SequenceNode && flag.IsSlice():
		var list []any
		for _, member := range node.Content {
			list = append(list, member.Value)
		}
		return list, nil
	default:
		s.meant = append(s.meant, flag.Name)
		s.faults.Add(fmt.Sprintf("%s (line %d)", flag.Name, node.Line), "has the wrong shape", "give one value, or a list where the flag may repeat")
		return nil, nil
	}
}

// onCommandLine says whether the flag of this name was typed.
func onCommandLine(ctx *kong.Context, name string) bool {
	return slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag != nil && !p.Resolved && p.Flag.Name == name })
}

// typed returns text as the flag takes it, or nil and a fault.
func (s *settings) typed(name string, flag *kong.Flag, text string) any {
	switch {
	case flag.IsSlice() && text == "":
		return []any{}
	case flag.IsSlice():
		var list []any
		for member := range strings.SplitSeq(text, ",") {
			list = append(list, strings.TrimSpace(member))
		}
		return list
	case flag.IsBool():
		b, err := strconv.ParseBool(text)
		if err != nil {
			s.faults.Add(name, fmt.Sprintf("is %q", text), "write true or false")
			return nil
		}
		return b
	}
	return text
}

// readFile reads the file that --config names, once.
func (s *settings) readFile(ctx *kong.Context) {
	if s.read {
		return
	}
	s.read = true
	path := configPath(ctx)
	if path == "" {
		return
	}
	s.unread = true
	b, err := os.ReadFile(path)
	if err != nil {
		s.faults.Add("--config", fmt.Sprintf("cannot be read: %v", errors.Unwrap(err)), "check the path "+path)
		return
	}
	var document yaml.Node
	if err := yaml.Unmarshal(b, &document); err != nil {
		s.faults.Add("--config", "is not YAML: "+strings.TrimPrefix(err.Error(), "yaml: "), "correct "+path)
		return
	}
	if len(document.Content) == 0 {
		s.unread = false
		return // an empty file sets nothing
	}
	settings := document.Content[0]
	if settings.Kind != yaml.MappingNode {
		s.faults.Add("--config", "has no settings", "write lines of the form `flag: value` into "+path)
		return
	}
	s.unread, s.file = false, make(map[string]*yaml.Node)
	for i := 0; i+1 < len(settings.Content); i += 2 {
		key, value := settings.Content[i], settings.Content[i+1]
		where := fmt.Sprintf("in %s, line %d,", path, key.Line)
		switch _, twice := s.file[key.Value]; {
		case key.Value == "config" || !slices.Contains(s.known, key.Value):
			best := nearest(key.Value, s.known)
			s.meant = append(s.meant, best)
			s.faults.Add(key.Value, where+" is no setting", "did you mean "+best+"?")
		case twice:
			s.faults.Add(key.Value, where+" is there a second time", "leave one of them")
		default:
			s.file[key.Value] = value
		}
	}
}

// configPath returns the file that the command line or the environment names.
func configPath(ctx *kong.Context) string {
	for _, flag := range ctx.Model.Flags {
		if flag.Name != "config" {
			continue
		}
		if path, _ := ctx.FlagValue(flag).(string); path != "" {
			return path
		}
	}
	return os.Getenv(variable("config"))
}

// nearest returns the word with the least edit distance to s.
func nearest(s string, words []string) string {
	best, least := "", len(s)+64
	for _, w := range words {
		if d := distance(strings.ToLower(s), w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

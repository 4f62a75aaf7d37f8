package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

type userCmd struct {
	Create      userCreate      `cmd:"" help:"Make a person who can sign in."`
	List        userList        `cmd:"" help:"List users."`
	Show        userShow        `cmd:"" help:"Show a user."`
	Update      userUpdate      `cmd:"" help:"Change a user's name or e-mail address."`
	Disable     userDisable     `cmd:"" help:"Stop a user at once."`
	Enable      userEnable      `cmd:"" help:"Let a disabled user sign in again."`
	SetPassword userSetPassword `cmd:"" help:"Replace a user's password."`
	Invite      userInvite      `cmd:"" help:"Make a link with which a user chooses a password."`
	GrantRole   userGrantRole   `cmd:"" help:"Give a user a role."`
	RevokeRole  userRevokeRole  `cmd:"" help:"Take a role from a user."`
	Delete      userDelete      `cmd:"" help:"Remove a user for good."`
}

func (*userCmd) Examples() string { return (*userCreate)(nil).Examples() }

type userJSON struct {
	Sub           string   `json:"sub"`
	Username      string   `json:"username"`
	Name          string   `json:"name"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	Roles         []string `json:"roles"`
	Enabled       bool     `json:"enabled"`
	Password      string   `json:"password,omitempty"`
	CreatedAt     instant  `json:"created_at"`
	UpdatedAt     instant  `json:"updated_at"`
}

func viewUser(u storage.User) userJSON {
	return userJSON{
		Sub: u.ID, Username: u.Username, Name: provider.NameOf(u), Email: u.Email, EmailVerified: u.EmailVerified, Roles: orEmpty(u.Roles),
		Enabled: u.Enabled, CreatedAt: instant(u.CreatedAt), UpdatedAt: instant(u.UpdatedAt),
	}
}

const passwordNote = "   (shown only now; to be changed at the next sign-in)"

func describeUser(w io.Writer, v userJSON) {
	field(w, "username", v.Username)
	if v.Password != "" {
		field(w, "password", v.Password+passwordNote)
	}
	field(w, "sub", v.Sub)
	field(w, "name", v.Name)
	if v.Email != "" {
		field(w, "email", v.Email+mark(v.EmailVerified, "   (verified)", "   (not verified)"))
	}
	field(w, "roles", words(v.Roles))
	field(w, "state", mark(v.Enabled, "enabled", "disabled"))
	field(w, "created", v.CreatedAt.String())
}

// passwordFlags say where a password comes from: neither, a prompt.
type passwordFlags struct {
	GeneratePassword bool `xor:"password" help:"Make a random password and show it once."`
	PasswordStdin    bool `xor:"password" help:"Read the password from standard input, one line."`
}

// password makes or reads a password; only a terminal is asked twice.
func (a *app) password(ctx context.Context, f passwordFlags) (string, error) {
	switch {
	case f.GeneratePassword:
		return provider.GeneratePassword(), nil
	case f.PasswordStdin:
		return unlessInterrupted(ctx, a.readPassword)
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", usage("there is no terminal to ask for the password on", "give it with --password-stdin, or let --generate-password make one")
	}
	first, err := a.ask(ctx, terminal, "Password: ")
	if err != nil {
		return "", err
	}
	second, err := a.ask(ctx, terminal, "Once more: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", usage("the two passwords differ", "try again")
	}
	return first, nil
}

// readPassword reads one line of standard input.
func (a *app) readPassword() (string, error) {
	const longest = 4096 // bytes read; what is accepted is the provider's to say
	line, err := bufio.NewReader(io.LimitReader(a.stdin, longest)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("password: %w", err)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", usage("standard input has no password", "pipe one line into the command")
	}
	return line, nil
}

// ask reads a line from the terminal without showing it.
func (a *app) ask(ctx context.Context, terminal *os.File, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	fmt.Fprint(a.stderr, prompt)
	b, err := unlessInterrupted(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(a.stderr)
	if err != nil {
		_ = term.Restore(fd, before) // an interrupted read leaves the terminal silent
		return "", fmt.Errorf("password: %w", err)
	}
	return string(b), nil
}

// unlessInterrupted returns what read does, or the reason why ctx ended while
// it was waiting for input. The read then goes on until the program ends.
func unlessInterrupted[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

type userCreate struct {
	Username      string   `arg:"" name:"username" help:"To sign in with, in any case."`
	Name          string   `placeholder:"TEXT" help:"Their name, as apps with the scope profile see it."`
	Email         string   `required:"" placeholder:"ADDRESS" help:"E-mail address."`
	EmailVerified bool     `help:"The address is known to be theirs."`
	Role          []string `sep:"none" placeholder:"ROLE" help:"Role they have; may repeat."`
	passwordFlags
}

// Help says what a password has to be.
func (*userCreate) Help() string {
	return "A password has 15 characters at least, of any kind but control characters, and 1024 bytes at most. It does not contain the username, the address, the part of it before the @ or the word signet, and is not made of common words, names of the account, runs and repetitions alone. You know it, so they choose another when they first sign in."
}

func (*userCreate) Examples() string {
	return `
signet user create alice --name "Alice Example" --email alice@example.com --generate-password
echo "correct horse battery staple" | signet user create bob --email bob@example.com --email-verified --role orders-clerk --password-stdin`
}

func (c *userCreate) Run(ctx context.Context, a *app) error {
	var faults provider.InvalidError
	single(faults.Add, "--role", c.Role)
	if err := faults.Err(); err != nil {
		return err
	}
	row := storage.User{Username: c.Username, Email: c.Email, EmailVerified: c.EmailVerified, Roles: c.Role}
	var err error
	row.Profile, err = provider.WithName("", c.Name)
	if err != nil {
		return &provider.InvalidError{Faults: []provider.Fault{{Field: fmt.Sprintf("--name %q", c.Name), Problem: err.Error()}}}
	}
	if !c.GeneratePassword && !c.PasswordStdin { // nobody types one twice for nothing
		if err := provider.CheckPerson(row); err != nil {
			return err
		}
	}
	password, err := a.password(ctx, c.passwordFlags)
	if err != nil {
		return err
	}
	i, err := a.openOrMake(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err = i.Admin().CreateUser(ctx, row, password)
	if err != nil {
		return err
	}
	v := viewUser(row)
	if c.GeneratePassword {
		v.Password = password
	}
	return a.print(v, func(w io.Writer) { describeUser(w, v) })
}

type userList struct {
	listFlags
}

func (*userList) Examples() string { return "signet user list" }

func (c *userList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := page(c.listFlags, func(p storage.Page) ([]storage.User, error) { return i.Store.Users(ctx, p) },
		func(row storage.User) string { return row.UsernameKey }, viewUser)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			c.none(w, "user")
			return
		}
		fmt.Fprintln(w, "USERNAME\tEMAIL\tROLES\tSTATE\tSUB")
		for _, v := range l.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Username, v.Email, shorten(words(v.Roles), widestList), mark(v.Enabled, "enabled", "disabled"), v.Sub)
		}
		more(w, l)
	})
}

// userArg names one user.
type userArg struct {
	Name string `arg:"" help:"Username, e-mail address or sub."`
}

// user runs do and prints the user it returns.
func (a *app) user(ctx context.Context, do func(*provider.Admin) (storage.User, error)) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err := do(i.Admin())
	if err != nil {
		return err
	}
	v := viewUser(row)
	return a.print(v, func(w io.Writer) { describeUser(w, v) })
}

type userShow struct{ userArg }

func (*userShow) Examples() string { return "signet user show alice@example.com" }

func (c *userShow) Run(ctx context.Context, a *app) error {
	return a.user(ctx, func(admin *provider.Admin) (storage.User, error) { return admin.User(ctx, c.Name) })
}

type userUpdate struct {
	userArg
	userChanges
}

type userChanges struct {
	FullName      *string `name:"name" placeholder:"TEXT" help:"Their name, as apps with the scope profile see it; \"\" takes it away."`
	Email         *string `placeholder:"ADDRESS" help:"E-mail address."`
	EmailVerified *bool   `help:"The address is known to be theirs; with =false it is not."`
}

// Help says what a change means for what is out.
func (*userUpdate) Help() string {
	return "Only what is given changes. Another address is not verified unless --email-verified says so. Apps see it at their next look, and ID tokens say it from the next on. A link of user invite that is out stays good, wherever it was sent: setting a password ends it."
}

func (*userUpdate) Examples() string {
	return `signet user update alice --name "Alice Example" --email alice.example@example.com --email-verified`
}

func (c *userUpdate) Run(ctx context.Context, a *app) error {
	if c.userChanges == (userChanges{}) {
		return usage("there is nothing to change", "`signet user update --help` shows what can be")
	}
	return a.user(ctx, func(admin *provider.Admin) (storage.User, error) {
		return admin.UpdateUser(ctx, c.Name, provider.UserChange{Name: c.FullName, Email: c.Email, EmailVerified: c.EmailVerified})
	})
}

type userDisable struct{ userArg }

// Help says what it means for tokens that are out.
func (*userDisable) Help() string {
	return "They cannot sign in and get no token, and tokens that are out for them are refused: by introspection at once, by offline verifiers as they hear of it."
}

func (*userDisable) Examples() string { return "signet user disable alice" }

func (c *userDisable) Run(ctx context.Context, a *app) error {
	return a.user(ctx, func(admin *provider.Admin) (storage.User, error) { return admin.DisableUser(ctx, c.Name) })
}

type userEnable struct{ userArg }

func (*userEnable) Examples() string { return "signet user enable alice" }

func (c *userEnable) Run(ctx context.Context, a *app) error {
	return a.user(ctx, func(admin *provider.Admin) (storage.User, error) { return admin.EnableUser(ctx, c.Name) })
}

type userSetPassword struct {
	userArg
	passwordFlags
}

// Help says what it means for tokens that are out.
func (*userSetPassword) Help() string {
	return "Tokens and sessions from before are refused: whoever knew the old password has nothing left. You know the new one, so they choose another at the next sign-in."
}

func (*userSetPassword) Examples() string {
	return `echo "four words and a number 7" | signet user set-password alice --password-stdin`
}

func (c *userSetPassword) Run(ctx context.Context, a *app) error {
	password, err := a.password(ctx, c.passwordFlags)
	if err != nil {
		return err
	}
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err := i.Admin().SetPassword(ctx, c.Name, password)
	if err != nil {
		return err
	}
	v := viewUser(row)
	if c.GeneratePassword {
		v.Password = password
	}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "Password of %s replaced. Tokens and sessions from before are refused.\n", v.Username)
		if v.Password != "" {
			field(w, "password", v.Password+passwordNote)
		}
	})
}

type userInvite struct {
	userArg
	Issuer string `placeholder:"URL" help:"What the link begins with. Without it: the issuer this database was last served as."`
}

// Help says whom the link makes of its bearer.
func (*userInvite) Help() string {
	return "The link works once, for 24 hours, and until a password is set in any other way. Whoever has it becomes the user: send it on a way that only they read. If they have a password already, the new one takes its place and ends their sessions and tokens."
}

func (*userInvite) Examples() string {
	return "signet user invite alice --issuer http://localhost:8080"
}

type invitationJSON struct {
	SetupURL  string  `json:"setup_url"`
	ExpiresAt instant `json:"expires_at"`
}

func (c *userInvite) Run(ctx context.Context, a *app) error {
	if c.Issuer != "" {
		if _, err := provider.ParseIssuer(c.Issuer); err != nil {
			return &provider.InvalidError{Faults: []provider.Fault{{Field: "--issuer", Problem: issuerProblem(c.Issuer, err)}}}
		}
	}
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	if i.issuer = cmp.Or(c.Issuer, i.issuer); i.issuer == "" {
		return usage("--issuer is needed: this database was never served, and the link begins with it", "give the URL that `signet serve` will have")
	}
	link, expires, err := i.Admin().InviteUser(ctx, c.Name)
	if err != nil {
		return err
	}
	v := invitationJSON{SetupURL: link, ExpiresAt: instant(expires)}
	return a.print(v, func(w io.Writer) {
		field(w, "link", v.SetupURL)
		field(w, "expires", v.ExpiresAt.String())
	})
}

type userGrantRole struct {
	userArg
	Role string `arg:"" help:"Name of the role."`
}

func (*userGrantRole) Examples() string { return "signet user grant-role alice orders-clerk" }

func (c *userGrantRole) Run(ctx context.Context, a *app) error {
	return a.user(ctx, func(admin *provider.Admin) (storage.User, error) { return admin.GrantUserRole(ctx, c.Name, c.Role) })
}

type userRevokeRole struct {
	userArg
	Role string `arg:"" help:"Name of the role."`
}

// Help says what it means for tokens that are out.
func (*userRevokeRole) Help() string {
	return "Their tokens from before are refused; a refresh brings new ones without the role."
}

func (*userRevokeRole) Examples() string { return "signet user revoke-role bob orders-clerk" }

func (c *userRevokeRole) Run(ctx context.Context, a *app) error {
	return a.user(ctx, func(admin *provider.Admin) (storage.User, error) { return admin.RevokeUserRole(ctx, c.Name, c.Role) })
}

type userDelete struct{ userArg }

// Help says what it means for tokens that are out.
func (*userDelete) Help() string {
	return "Their sessions, consents and roles go with them, and their tokens are refused. The sub is never given to anyone else. There is no way back."
}

func (*userDelete) Examples() string { return "signet user delete alice" }

func (c *userDelete) Run(ctx context.Context, a *app) error {
	return a.remove(ctx, "username", func(admin *provider.Admin) (string, error) {
		u, err := admin.DeleteUser(ctx, c.Name)
		return u.Username, err
	})
}

package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// Admin is what an operator can do: the one place where clients, resources,
// roles and users are made and changed. Each method is one transaction that
// changes the truth, appends what verifiers have to be told (the table of
// package revocation's callers: disabled, deleted, role lost, password changed)
// and writes the audit row. It is safe for concurrent use.
//
// Methods return an *InvalidError with everything that is wrong with the
// request, an *ObjectError when the object named does not exist or exists
// already, or an error that wraps storage.ErrUnavailable.
type Admin struct {
	store  storage.Store
	ring   func(context.Context) (*keys.Ring, error)
	sealer func(context.Context) (*keys.Sealer, error)
	policy Policy
	now    func() time.Time
	actor  string
	issuer string

	fetch      func(context.Context, string) ([]byte, error)
	entries    entries
	schedule   keys.Schedule
	mustChange bool
}

// AdminConfig says what an Admin works on.
type AdminConfig struct {
	Store storage.Store
	// Ring returns the current keys. It is called only to make a client
	// secret, so that other commands need no key-encryption key.
	Ring func(context.Context) (*keys.Ring, error)
	// Sealer returns what opens the keys. It is called only to change those.
	Sealer   func(context.Context) (*keys.Sealer, error)
	Schedule keys.Schedule
	// Fetch returns what is at a client's sector_identifier_uri. Its error is
	// shown to whoever asked for it. Nil: nothing is fetched.
	Fetch  func(ctx context.Context, uri string) ([]byte, error)
	Policy Policy
	// Now is the clock all replicas share, or a little later.
	Now    func() time.Time
	Actor  string // who is acting, for the audit log: "operator", a sub or a client_id
	Issuer string // refused as a resource; "" when not known
	// MustChange lets whoever gets a password here choose their own at the next
	// sign-in, because the one who set it knows it.
	MustChange bool
}

// NewAdmin returns an Admin.
func NewAdmin(c AdminConfig) *Admin {
	if c.Fetch == nil {
		c.Fetch = func(context.Context, string) ([]byte, error) { return nil, errors.New("nothing is fetched from here") }
	}
	return &Admin{store: c.Store, fetch: c.Fetch, ring: c.Ring, sealer: c.Sealer, schedule: c.Schedule, policy: c.Policy, now: c.Now, actor: c.Actor, issuer: c.Issuer, mustChange: c.MustChange,
		entries: entries{c.Now, c.Policy}}
}

// The audit events of administration, a closed list.
const (
	eventClientCreated       = "client.created"
	eventClientUpdated       = "client.updated"
	eventClientDisabled      = "client.disabled"
	eventClientEnabled       = "client.enabled"
	eventClientDeleted       = "client.deleted"
	eventClientRevoked       = "client.tokens_revoked"
	eventClientSecretRotated = "client.secret_rotated"
	eventInitialToken        = "client.initial_access_token_created"
	eventInitialTokenRevoked = "client.initial_access_token_revoked"
	eventResourceCreated     = "resource.created"
	eventResourceUpdated     = "resource.updated"
	eventResourceDeleted     = "resource.deleted"
	eventRoleCreated         = "role.created"
	eventRoleDeleted         = "role.deleted"
	eventUserCreated         = "user.created"
	eventUserUpdated         = "user.updated"
	eventUserDisabled        = "user.disabled"
	eventUserEnabled         = "user.enabled"
	eventUserDeleted         = "user.deleted"
	eventUserInvited         = "user.invited"
	eventUserPasswordSet     = "user.password_set"
	eventUserRoleGranted     = "user.role_granted"
	eventUserRoleRevoked     = "user.role_revoked"
	eventUserRevoked         = "user.tokens_revoked"
	eventRestored            = "database.restored"
)

// Fault is one thing that is wrong with a request.
type Fault struct {
	Field   string // the parameter, as the RFCs name it
	Problem string // what is wrong with it
	Fix     string // what to do about it; "" when the problem says it
}

func (f Fault) String() string {
	s := f.Field + " " + f.Problem
	if f.Fix != "" {
		s += "; " + f.Fix
	}
	return s
}

// InvalidError is a request that makes no sense, with every fault in it. The
// zero value has none and collects them.
type InvalidError struct{ Faults []Fault }

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Add adds a fault.
func (e *InvalidError) Add(field, problem, fix string) {
	e.Faults = append(e.Faults, Fault{Field: field, Problem: problem, Fix: fix})
}

// Err returns e if it has faults, or nil.
func (e *InvalidError) Err() error {
	if len(e.Faults) == 0 {
		return nil
	}
	return e
}

// check adds a fault when err says there is one. value, unless "", is the
// member of a list that err is about.
func (e *InvalidError) check(field, value string, err error) {
	if err == nil {
		return
	}
	if value != "" {
		field = fmt.Sprintf("%s %q", field, value)
	}
	e.Add(field, err.Error(), "")
}

// ObjectError says which object does not exist or exists already. It wraps
// storage.ErrNotFound or storage.ErrExists.
type ObjectError struct {
	Noun string // "client", "resource", "role" or "user"
	Name string
	Err  error
}

func (e *ObjectError) Error() string { return fmt.Sprintf("%s %q %v", e.Noun, e.Name, e.Err) }

func (e *ObjectError) Unwrap() error { return e.Err }

// object says which object a sentinel of the storage is about.
func object(noun, name string, err error) error {
	for _, sentinel := range []error{storage.ErrNotFound, storage.ErrExists} {
		if errors.Is(err, sentinel) {
			return &ObjectError{Noun: noun, Name: name, Err: sentinel}
		}
	}
	return err
}

// change is a transaction of an Admin, and the time it happens at.
type change struct {
	storage.Tx
	admin *Admin
	now   time.Time
}

// update runs fn in a transaction that holds the registry's lock, so that what
// fn decides on what it reads stays true until the commit.
func (a *Admin) update(ctx context.Context, fn func(ctx context.Context, tx change) error) error {
	return a.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if err := tx.LockRegistry(ctx); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		return fn(ctx, change{Tx: tx, admin: a, now: a.now()})
	})
}

// updateUsers runs fn in a transaction that leaves the registry alone.
func (a *Admin) updateUsers(ctx context.Context, fn func(ctx context.Context, tx change) error) error {
	return a.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return fn(ctx, change{Tx: tx, admin: a, now: a.now()})
	})
}

// revoke appends an entry to the log that verifiers follow.
func (tx change) revoke(ctx context.Context, entry makeEntry, kind, value, reason string) error {
	_, err := tx.append(ctx, entry, kind, value, reason)
	return err
}

// revokePerson appends an entry about the person's tokens, under every sub that
// they have there, all of one moment. Whoever calls it has locked the user,
// before anything of the session: see lockSubject.
func (tx change) revokePerson(ctx context.Context, entry makeEntry, userID, reason string) (Revoked, error) {
	return tx.admin.entries.person(ctx, tx, entry, userID, reason)
}

// endGrants revokes what apps hold of a person or a client, and endSessions
// what browsers hold of a person, of which apps are told. Their access tokens are
// refused by the entry for the person or client that the caller appends afterwards.
func (tx change) endGrants(ctx context.Context, f storage.GrantFilter, reason string) error {
	if _, err := tx.RevokeGrants(ctx, f, tx.now, reason); err != nil {
		return fmt.Errorf("grants: %w", err)
	}
	return nil
}

func (tx change) endSessions(ctx context.Context, userID, reason string) error {
	ended, err := tx.EndSessions(ctx, userID, "", tx.now, reason)
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	return queueLogouts(ctx, tx, tx.now, userID, anyOf(ended...))
}

// endAccess ends all that was ever signed in as the person. Sessions go first:
// see stillSignedIn.
func (tx change) endAccess(ctx context.Context, userID, reason string) error {
	if err := tx.endSessions(ctx, userID, reason); err != nil {
		return err
	}
	return tx.endGrants(ctx, storage.GrantFilter{UserID: userID}, reason)
}

// unblock lifts what the log still has against a name that is used anew: the
// tokens of its earlier holder stay refused, those of the new one are not.
func (tx change) unblock(ctx context.Context, kind, value, reason string) error {
	earlier, err := tx.Revocations(ctx, []storage.RevocationKey{revocation.Key(kind, value)}, tx.now)
	if err != nil {
		return fmt.Errorf("revocation log: %w", err)
	}
	if len(earlier) == 0 {
		return nil
	}
	return tx.revoke(ctx, revocation.Epoch, kind, value, reason)
}

// audit records the event. detail never holds a secret.
func (tx change) audit(ctx context.Context, event, userID, clientID string, detail map[string]any) error {
	e := storage.AuditEvent{
		ID:       uuid.Must(uuid.NewV7()).String(),
		At:       tx.now,
		Event:    event,
		Actor:    tx.admin.actor,
		UserID:   userID,
		ClientID: clientID,
	}
	o := originOf(ctx) // none for an operator's command
	e.Address, e.RequestID = o.Address, o.RequestID
	if len(detail) > 0 {
		b, err := json.Marshal(detail)
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		e.Detail = string(b)
	}
	if err := tx.AppendAudit(ctx, e); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// each reads a listing to its end, a page at a time, and hands every row to do.
func each[T any](ctx context.Context, list func(context.Context, storage.Page) ([]T, error), key func(T) string, do func(T) error) error {
	const size = 500
	for after := ""; ; {
		page, err := list(ctx, storage.Page{After: after, Limit: size})
		if err != nil {
			return err
		}
		for _, row := range page {
			if err := do(row); err != nil {
				return err
			}
		}
		if len(page) < size {
			return nil
		}
		after = key(page[len(page)-1])
	}
}

// all returns a listing whole.
func all[T any](ctx context.Context, list func(context.Context, storage.Page) ([]T, error), key func(T) string) ([]T, error) {
	var rows []T
	err := each(ctx, list, key, func(row T) error {
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// rolesByName returns every role.
func rolesByName(ctx context.Context, r storage.Reader) (map[string]storage.Role, error) {
	rows, err := all(ctx, r.Roles, func(role storage.Role) string { return role.Name })
	if err != nil {
		return nil, fmt.Errorf("roles: %w", err)
	}
	byName := make(map[string]storage.Role, len(rows))
	for _, role := range rows {
		byName[role.Name] = role
	}
	return byName, nil
}

// UnownedScopes returns those of the scopes that no resource has, and that are
// not OpenID Connect's: nobody can be granted them.
func UnownedScopes(ctx context.Context, r storage.Reader, scopes []string) ([]string, error) {
	if len(scopes) == 0 {
		return nil, nil
	}
	resources, err := allResources(ctx, r)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(scopes), func(name string) bool {
		return slices.Contains(oidcScopes, name) || slices.ContainsFunc(resources, func(res storage.Resource) bool {
			return slices.ContainsFunc(res.Scopes, func(s storage.Scope) bool { return s.Name == name })
		})
	}), nil
}

func allResources(ctx context.Context, r storage.Reader) ([]storage.Resource, error) {
	rows, err := all(ctx, r.Resources, func(res storage.Resource) string { return res.URI })
	if err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	return rows, nil
}

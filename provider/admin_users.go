package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// User returns the user whose username, e-mail address or sub is name: the one
// of public clients, or a pairwise one that is in use.
func (a *Admin) User(ctx context.Context, name string) (storage.User, error) {
	return findUser(ctx, a.store, name)
}

func findUser(ctx context.Context, r storage.Reader, name string) (storage.User, error) {
	if isUUID(name) {
		u, err := r.User(ctx, strings.ToLower(name))
		return u, object("user", name, err)
	}
	if isPairwise(name, pairwiseSubSize) {
		id, err := r.PairwiseUser(ctx, name)
		if err != nil {
			return storage.User{}, object("user", name, err)
		}
		u, err := r.User(ctx, id)
		return u, object("user", name, err)
	}
	key, err := LoginKey(name)
	if err != nil { // nobody can have such a name
		return storage.User{}, &ObjectError{Noun: "user", Name: name, Err: storage.ErrNotFound}
	}
	u, err := r.UserByLogin(ctx, key)
	return u, object("user", name, err)
}

// CheckPerson returns the *InvalidError that CreateUser has for u as far as
// that is known without a database and a password.
func CheckPerson(u storage.User) error {
	f := checkPerson(&u)
	return f.Err()
}

// checkPerson also sets the keys that u is found by.
func checkPerson(u *storage.User) (f InvalidError) {
	var err error
	u.UsernameKey, err = usernameKey(u.Username)
	f.check("username", u.Username, err)
	u.EmailKey = ""
	if u.Email != "" {
		u.EmailKey, err = emailKey(u.Email)
		f.check("email", u.Email, err)
	} else if u.EmailVerified {
		f.Add("email_verified", "needs an e-mail address", "give one, or leave it out")
	}
	return f
}

// CreateUser makes a person who can sign in, from u's username, e-mail address
// and whether that is verified, roles, profile and locale. Without a password
// ("") there is no signing in until SetPassword.
func (a *Admin) CreateUser(ctx context.Context, u storage.User, password string) (storage.User, error) {
	f := checkPerson(&u)
	if password != "" {
		f.check("password", "", checkPassword(password, a.issuer, u))
	}
	err := checkRolesExist(ctx, a.store, &f, u.Roles)
	if err != nil {
		return storage.User{}, err
	}
	if err := f.Err(); err != nil {
		return storage.User{}, err
	}
	hash := ""
	if password != "" {
		hash = a.policy.passwordCost().hash(password)
	}
	u.ID = uuid.NewString()
	u.Roles = distinct(u.Roles)
	u.Enabled = true
	err = a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		u.CreatedAt, u.UpdatedAt = tx.now, tx.now
		for login, key := range map[string]string{u.Username: u.UsernameKey, u.Email: u.EmailKey} {
			if key == "" {
				continue
			}
			switch _, err := tx.UserByLogin(ctx, key); {
			case err == nil:
				return &ObjectError{Noun: "user", Name: login, Err: storage.ErrExists}
			case !isNotFound(err):
				return fmt.Errorf("user: %w", err)
			}
		}
		if err := tx.CreateUser(ctx, u); err != nil {
			return object("user", u.Username, err)
		}
		if hash != "" {
			if err := tx.setPassword(ctx, u.ID, hash); err != nil {
				return fmt.Errorf("password: %w", err)
			}
		}
		return tx.audit(ctx, eventUserCreated, u.ID, "", map[string]any{"username": u.Username, "roles": u.Roles})
	})
	if err != nil {
		return storage.User{}, err
	}
	return a.User(ctx, u.ID)
}

// UserChange is what UpdateUser changes: nil leaves it as it is.
type UserChange struct {
	Name          *string // how people call them; "" takes it away
	Email         *string
	EmailVerified *bool // nil for another address: it is not verified any more
}

// UpdateUser changes the user whose username, e-mail address or sub is name.
// Tokens that are out stay good: none of this decides about access.
func (a *Admin) UpdateUser(ctx context.Context, name string, c UserChange) (storage.User, error) {
	return a.changeUser(ctx, name, func(ctx context.Context, tx change, before storage.User) error {
		u := before
		var f InvalidError
		if c.Email != nil && *c.Email != before.Email {
			var err error
			u.EmailKey, err = emailKey(*c.Email)
			f.check("email", *c.Email, err)
			u.Email, u.EmailVerified = *c.Email, false
		}
		if c.EmailVerified != nil {
			u.EmailVerified = *c.EmailVerified
		}
		if u.EmailVerified && u.Email == "" {
			f.Add("email_verified", "needs an e-mail address", "give one, or leave it out")
		}
		if c.Name != nil {
			var err error
			u.Profile, err = WithName(before.Profile, *c.Name)
			f.check("name", *c.Name, err)
		}
		if err := f.Err(); err != nil {
			return err
		}
		if u.EmailKey != before.EmailKey {
			switch other, err := tx.UserByLogin(ctx, u.EmailKey); {
			case err == nil && other.ID != u.ID:
				return &ObjectError{Noun: "user", Name: u.Email, Err: storage.ErrExists}
			case err != nil && !isNotFound(err):
				return fmt.Errorf("user: %w", err)
			}
		}
		var changed []string
		for field, differs := range map[string]bool{
			"name": u.Profile != before.Profile, "email": u.Email != before.Email, "email_verified": u.EmailVerified != before.EmailVerified,
		} {
			if differs {
				changed = append(changed, field)
			}
		}
		if changed == nil {
			return nil
		}
		slices.Sort(changed)
		u.UpdatedAt = tx.now
		if err := tx.UpdateUser(ctx, u); err != nil {
			if errors.Is(err, storage.ErrExists) { // taken meanwhile
				return &ObjectError{Noun: "user", Name: u.Email, Err: storage.ErrExists}
			}
			return object("user", name, err)
		}
		return tx.audit(ctx, eventUserUpdated, u.ID, "", map[string]any{"changed": changed})
	})
}

// NameOf returns how people call the user, or "".
func NameOf(u storage.User) string {
	var profile struct{ Name string }
	_ = json.Unmarshal([]byte(u.Profile), &profile) // an unreadable profile names nobody
	return profile.Name
}

// WithName returns a profile with another name, or with none. The parts of the
// name before go: they would contradict it.
func WithName(profile, name string) (string, error) {
	claims := make(map[string]any)
	if profile != "" {
		if err := json.Unmarshal([]byte(profile), &claims); err != nil {
			return "", fmt.Errorf("cannot be set: the profile in the database is unreadable: %w", err)
		}
	}
	if current, _ := claims["name"].(string); current == name {
		return profile, nil
	}
	for _, claim := range []string{"name", "given_name", "family_name", "middle_name"} {
		delete(claims, claim)
	}
	if name != "" {
		if err := checkLabel(name); err != nil {
			return "", err
		}
		claims["name"] = name
	}
	if len(claims) == 0 {
		return "", nil
	}
	b, err := json.Marshal(claims)
	return string(b), err
}

func (tx change) setPassword(ctx context.Context, userID, hash string) error {
	return tx.SetPassword(ctx, storage.Password{
		UserID: userID, Hash: hash, MustChange: tx.admin.mustChange, CreatedAt: tx.now, UpdatedAt: tx.now,
	})
}

// SetPassword replaces the user's password. Tokens issued before are refused.
func (a *Admin) SetPassword(ctx context.Context, name, password string) (storage.User, error) {
	u, err := a.User(ctx, name)
	if err != nil {
		return storage.User{}, err
	}
	var f InvalidError
	f.check("password", "", checkPassword(password, a.issuer, u))
	if err := f.Err(); err != nil {
		return storage.User{}, err
	}
	hash := a.policy.passwordCost().hash(password)
	err = a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		if err := tx.LockUser(ctx, u.ID); err != nil {
			return object("user", name, err)
		}
		err := tx.setPassword(ctx, u.ID, hash)
		if errors.Is(err, storage.ErrReference) { // deleted meanwhile
			return &ObjectError{Noun: "user", Name: name, Err: storage.ErrNotFound}
		}
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		if err := tx.endAccess(ctx, u.ID, eventUserPasswordSet); err != nil {
			return err
		}
		if _, err := tx.revokePerson(ctx, revocation.Epoch, u.ID, eventUserPasswordSet); err != nil {
			return err
		}
		return tx.audit(ctx, eventUserPasswordSet, u.ID, "", nil)
	})
	return u, err
}

// DisableUser stops the user at once: no sign-in, no token, and those that are
// out are refused. Both it and EnableUser may be repeated.
func (a *Admin) DisableUser(ctx context.Context, name string) (storage.User, error) {
	return a.setUserEnabled(ctx, name, false)
}

// EnableUser undoes DisableUser. Tokens from before stay refused.
func (a *Admin) EnableUser(ctx context.Context, name string) (storage.User, error) {
	return a.setUserEnabled(ctx, name, true)
}

func (a *Admin) setUserEnabled(ctx context.Context, name string, enabled bool) (storage.User, error) {
	event, entry := eventUserDisabled, revocation.Block
	if enabled {
		event, entry = eventUserEnabled, revocation.Epoch
	}
	return a.changeUser(ctx, name, func(ctx context.Context, tx change, u storage.User) error {
		if u.Enabled == enabled {
			return nil
		}
		if err := tx.SetUserEnabled(ctx, u.ID, enabled, tx.now); err != nil { // which locks the user
			return object("user", name, err)
		}
		// The grants stay: the gate refuses them until the person is back. Of
		// sessions there are none by then but what a sign-in that was under way
		// when the person was disabled may have left.
		if err := tx.endSessions(ctx, u.ID, event); err != nil {
			return err
		}
		if _, err := tx.revokePerson(ctx, entry, u.ID, event); err != nil {
			return err
		}
		return tx.audit(ctx, event, u.ID, "", nil)
	})
}

// DeleteUser removes the user for good and returns who it was; their tokens
// are refused.
func (a *Admin) DeleteUser(ctx context.Context, name string) (storage.User, error) {
	var u storage.User
	err := a.updateUsers(ctx, func(ctx context.Context, tx change) (err error) {
		if u, err = findUser(ctx, tx, name); err != nil {
			return err
		}
		if err := tx.LockUser(ctx, u.ID); err != nil {
			return object("user", name, err)
		}
		if err := tx.endAccess(ctx, u.ID, eventUserDeleted); err != nil {
			return err
		}
		if _, err := tx.revokePerson(ctx, revocation.Block, u.ID, eventUserDeleted); err != nil {
			return err
		}
		if err := tx.DeleteUser(ctx, u.ID); err != nil {
			return object("user", name, err)
		}
		return tx.audit(ctx, eventUserDeleted, u.ID, "", map[string]any{"username": u.Username})
	})
	return u, err
}

// GrantUserRole gives the user a role. It counts from their next token on.
func (a *Admin) GrantUserRole(ctx context.Context, name, role string) (storage.User, error) {
	return a.changeUser(ctx, name, func(ctx context.Context, tx change, u storage.User) error {
		if slices.Contains(u.Roles, role) {
			return nil
		}
		err := tx.GrantUserRole(ctx, u.ID, role, tx.now)
		if errors.Is(err, storage.ErrReference) {
			return &ObjectError{Noun: "role", Name: role, Err: storage.ErrNotFound}
		}
		if err != nil {
			return fmt.Errorf("grant role: %w", err)
		}
		return tx.audit(ctx, eventUserRoleGranted, u.ID, "", map[string]any{"role": role})
	})
}

// RevokeUserRole takes the role away. Tokens that may carry it are refused.
func (a *Admin) RevokeUserRole(ctx context.Context, name, role string) (storage.User, error) {
	return a.changeUser(ctx, name, func(ctx context.Context, tx change, u storage.User) error {
		if err := tx.LockUser(ctx, u.ID); err != nil {
			return object("user", name, err)
		}
		if err := tx.RevokeUserRole(ctx, u.ID, role); err != nil {
			return object("role of "+u.Username, role, err)
		}
		if _, err := tx.revokePerson(ctx, revocation.Epoch, u.ID, "role lost"); err != nil {
			return err
		}
		return tx.audit(ctx, eventUserRoleRevoked, u.ID, "", map[string]any{"role": role})
	})
}

// changeUser runs fn in a transaction and returns the user as it left them.
func (a *Admin) changeUser(ctx context.Context, name string, fn func(ctx context.Context, tx change, u storage.User) error) (storage.User, error) {
	var u storage.User
	err := a.updateUsers(ctx, func(ctx context.Context, tx change) (err error) {
		if u, err = findUser(ctx, tx, name); err != nil {
			return err
		}
		if err := fn(ctx, tx, u); err != nil {
			return err
		}
		u, err = tx.User(ctx, u.ID)
		return object("user", name, err)
	})
	return u, err
}

package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/signet-oidc/signet/storage"
)

// The statements on the path of every authorization, refresh and userinfo
// request: all that they ask about in one, because each costs a round trip.
var (
	selectSessionUser = `SELECT ` + of("sessions", sessionColumns) + `, ` + of("users", userColumns) + `, ` + userRoles + `
		FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.id = $1`

	selectStanding = `SELECT ` + of("grants", grantColumns) + `, ` + of("users", userColumns) + `, ` + userRoles + `,
		COALESCE((SELECT string_agg(length(scope) || ':' || scope || length(resource_uri) || ':' || resource_uri
			|| '1:' || implicit || length('' || granted_at) || ':' || granted_at, '') FROM consents
			WHERE consents.user_id = grants.user_id AND consents.client_id = grants.client_id), ''),
		COALESCE(sessions.id, ''), COALESCE(sessions.user_id, ''), COALESCE(sessions.auth_time, 0), COALESCE(sessions.acr, ''),
		COALESCE(sessions.amr, '[]'), COALESCE(sessions.user_agent, ''), COALESCE(sessions.address, ''),
		COALESCE(sessions.created_at, 0), COALESCE(sessions.last_seen_at, 0), COALESCE(sessions.idle_end, 0),
		COALESCE(sessions.absolute_end, 0), COALESCE(sessions.ended_at, 0), COALESCE(sessions.end_reason, '')
		FROM grants JOIN users ON users.id = grants.user_id
			LEFT JOIN sessions ON sessions.id = grants.session_id AND grants.offline = 0
		WHERE grants.id = $1`
)

// of says whose the columns are.
func of(table, columns string) string {
	names := strings.Split(columns, ",")
	for i, name := range names {
		names[i] = table + "." + strings.TrimSpace(name)
	}
	return strings.Join(names, ", ")
}

// SessionUser implements storage.Reader.
func (r *Reader) SessionUser(ctx context.Context, id string) (storage.Session, storage.User, error) {
	var s storage.Session
	var u storage.User
	err := r.db.QueryRow(ctx, selectSessionUser, id).Scan(append(sessionTargets(&s), userTargets(&u)...)...)
	if err != nil {
		return storage.Session{}, storage.User{}, wrap(err, "read session and user")
	}
	slices.Sort(u.Roles)
	return s, u, nil
}

// Standing implements storage.Reader.
func (r *Reader) Standing(ctx context.Context, grantID string) (storage.Standing, error) {
	var st storage.Standing
	var consents []string
	targets := append(grantTargets(&st.Grant), userTargets(&st.User)...)
	targets = append(targets, packedOf{&consents}, &st.Session.ID)
	targets = append(targets, sessionTargets(&st.Session)[2:]...) // all but the secret
	err := r.db.QueryRow(ctx, selectStanding, grantID).Scan(targets...)
	if err == nil {
		st.Consents, err = unpackConsents(st.Grant, consents)
	}
	if err != nil {
		return storage.Standing{}, wrap(err, "read grant and person")
	}
	slices.Sort(st.User.Roles)
	return st, nil
}

// unpackConsents takes apart what selectStanding packs, four strings to a row.
func unpackConsents(g storage.Grant, packed []string) ([]storage.Consent, error) {
	var list []storage.Consent
	for row := range slices.Chunk(packed, 4) {
		at, err := strconv.ParseInt(row[len(row)-1], 10, 64)
		if err != nil || len(row) != 4 {
			return nil, fmt.Errorf("consents: %q", row)
		}
		c := storage.Consent{UserID: g.UserID, ClientID: g.ClientID, Scope: row[0], Resource: row[1], Implicit: row[2] == "1"}
		if err := (timeOf{&c.GrantedAt}).Scan(at); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

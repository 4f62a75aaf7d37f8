package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json" // member names by case, and no duplicates

	"github.com/signet-oidc/signet/storage"
)

// RegistrationMode says who may register clients at the registration endpoint.
type RegistrationMode string

// Nobody; who has an initial access token (RFC 7591 §3); anybody.
const (
	RegistrationOff   RegistrationMode = "off"
	RegistrationToken RegistrationMode = "token"
	RegistrationOpen  RegistrationMode = "open"
)

// Registration is the policy of dynamic client registration.
type Registration struct {
	Mode RegistrationMode // "" is off
	// Scopes of resources that clients which register themselves may ask for,
	// beside those of OpenID Connect.
	Scopes []string
	// WithoutPKCE lets confidential clients among them do without PKCE.
	WithoutPKCE bool
}

func (r Registration) on() bool { return r.Mode == RegistrationToken || r.Mode == RegistrationOpen }

// Registers says whether there is a registration endpoint.
func (p *Provider) Registers() bool { return p.registration.on() }

// originRegistration marks clients that registered themselves.
const originRegistration = "registration"

// Prefixes let secret scanners recognise a leaked token.
const (
	initialTokenPrefix      = "sga_"
	registrationTokenPrefix = "sgm_"
)

const kindInitialToken = "initial_access_token"

// initialToken is what an initial access token lets its bearer register.
type initialToken struct {
	Uses   int      `json:"uses"`
	Grants []string `json:"grants,omitempty"` // beside those of sign-ins
	Scopes []string `json:"scopes,omitempty"` // beside those of the policy
}

// CreateInitialAccessToken makes a token with which clients may be registered
// up to uses times before lifetime is over (RFC 7591 §3), also for the further
// grants and scopes named. It is shown this once; its hash is stored.
func (a *Admin) CreateInitialAccessToken(ctx context.Context, uses int, lifetime time.Duration, grants, scopes []string) (token string, made InitialAccessToken, err error) {
	var f InvalidError
	if uses < 1 || uses > 10_000 {
		f.Add("uses", "is out of range", "choose 1 to 10000")
	}
	if lifetime < time.Minute || lifetime > 365*24*time.Hour {
		f.Add("expires", "is out of range", "choose 1m to 8760h")
	}
	for _, g := range grants {
		if g != grantClientCredentials {
			f.Add("grant_types", fmt.Sprintf("%q is nothing to be let in for", g), "only "+grantClientCredentials+" needs to be")
		}
	}
	if err := f.Err(); err != nil {
		return "", InitialAccessToken{}, err
	}
	data, err := json.Marshal(initialToken{Uses: uses, Grants: grants, Scopes: scopes})
	if err != nil {
		return "", InitialAccessToken{}, err
	}
	token, hash := newBearer(initialTokenPrefix)
	err = a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		known := make(map[string]bool)
		resources, err := allResources(ctx, tx)
		if err != nil {
			return err
		}
		for _, r := range resources {
			for _, s := range r.Scopes {
				known[s.Name] = true
			}
		}
		for _, s := range scopes {
			if !known[s] {
				f.Add("scope", fmt.Sprintf("%q belongs to no resource", s), "create the resource that owns it first: signet resource create URI --name NAME --scope "+s)
			}
		}
		if err := f.Err(); err != nil {
			return err
		}
		e, err := readEpoch(ctx, tx)
		if err != nil {
			return err
		}
		row := storage.OneTime{Kind: kindInitialToken, KeyHash: hash, Data: string(data), CreatedAt: e.first(tx.now), ExpiresAt: tx.now.Add(lifetime)}
		if err := tx.UseOnce(ctx, row, tx.now); err != nil {
			return fmt.Errorf("initial access token: %w", err)
		}
		if made, err = newInitialAccessToken(row); err != nil {
			return err
		}
		return tx.audit(ctx, eventInitialToken, "", "", map[string]any{"id": made.ID, "uses": uses, "expires_at": made.ExpiresAt.Format(time.RFC3339), "scope": scopes})
	})
	return token, made, err
}

// InitialAccessToken is what can be told of an initial access token: everything
// but itself.
type InitialAccessToken struct {
	ID                   string // from its hash
	Uses                 int    // how many clients it still registers
	Grants, Scopes       []string
	CreatedAt, ExpiresAt time.Time
}

func newInitialAccessToken(row storage.OneTime) (InitialAccessToken, error) {
	t, err := readInitialToken(row)
	return InitialAccessToken{
		ID: initialTokenID(row), Uses: t.Uses, Grants: t.Grants, Scopes: t.Scopes,
		CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt,
	}, err
}

// InitialAccessTokens returns up to limit of the initial access tokens that
// still let somebody in, after the one with this id.
func (a *Admin) InitialAccessTokens(ctx context.Context, after string, limit int) ([]InitialAccessToken, error) {
	hash := []byte(nil)
	if after != "" {
		id, err := hex.DecodeString(after)
		if err != nil || len(id) != 8 {
			return nil, fmt.Errorf("initial access token %q: %w", clip(after), storage.ErrInvalid)
		}
		hash = append(id, slices.Repeat([]byte{0xff}, sha256.Size-len(id))...)
	}
	e, err := readEpoch(ctx, a.store)
	if err != nil {
		return nil, err
	}
	return initialTokens(ctx, a.store, e, hash, limit, a.entries.now())
}

// initialTokens leaves out those that a restored database voids.
func initialTokens(ctx context.Context, r storage.Reader, e epoch, after []byte, limit int, now time.Time) (list []InitialAccessToken, err error) {
	for len(list) < limit {
		rows, err := r.OneTimes(ctx, kindInitialToken, after, limit, now)
		if err != nil {
			return nil, fmt.Errorf("initial access tokens: %w", err)
		}
		for _, row := range rows {
			after = row.KeyHash
			if e.voids(row.CreatedAt) {
				continue
			}
			t, err := newInitialAccessToken(row)
			if err != nil {
				return nil, err
			}
			if list = append(list, t); len(list) == limit {
				break
			}
		}
		if len(rows) < limit {
			break
		}
	}
	return list, nil
}

// RevokeInitialAccessToken ends the token with this id. What was registered
// with it stays.
func (a *Admin) RevokeInitialAccessToken(ctx context.Context, id string) error {
	for {
		err := a.revokeInitialAccessToken(ctx, id)
		if !errors.Is(err, storage.ErrConsumed) || ctx.Err() != nil {
			return err
		}
		// Somebody has registered with it meanwhile, which writes it anew.
	}
}

func (a *Admin) revokeInitialAccessToken(ctx context.Context, id string) error {
	return a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		const page = 100
		for after := []byte(nil); ; {
			rows, err := tx.OneTimes(ctx, kindInitialToken, after, page, tx.now)
			if err != nil {
				return fmt.Errorf("initial access tokens: %w", err)
			}
			for _, row := range rows {
				if after = row.KeyHash; initialTokenID(row) != id {
					continue
				}
				if _, err := tx.TakeOnce(ctx, kindInitialToken, row.KeyHash, tx.now); err != nil {
					return fmt.Errorf("initial access token: %w", err)
				}
				return tx.audit(ctx, eventInitialTokenRevoked, "", "", map[string]any{"id": id})
			}
			if len(rows) < page {
				return object("initial access token", id, storage.ErrNotFound)
			}
		}
	})
}

// initialTokenID names a token to operators by the start of its hash.
func initialTokenID(row storage.OneTime) string { return hex.EncodeToString(row.KeyHash[:8]) }

// registered is the answer to a registration (RFC 7591 §3.2.1, RFC 7592 §3).
type registered struct {
	ClientID          string `json:"client_id"`
	ClientSecret      string `json:"client_secret,omitempty"` // when it was made just now: it is not kept
	IssuedAt          int64  `json:"client_id_issued_at"`
	SecretExpiresAt   *int64 `json:"client_secret_expires_at,omitempty"`
	RegistrationToken string `json:"registration_access_token,omitempty"` // when it was made just now
	RegistrationURI   string `json:"registration_client_uri"`
	clientDocument
}

func (p *Provider) newRegistered(c storage.Client, secret, token string) registered {
	r := registered{
		ClientID: c.ID, ClientSecret: secret, IssuedAt: c.CreatedAt.Unix(), RegistrationToken: token,
		RegistrationURI: p.issuer.Endpoint(PathRegistration) + "/" + c.ID, clientDocument: newClientDocument(c),
	}
	if hasSecret(c) {
		r.SecretExpiresAt = new(int64) // never
	}
	return r
}

// Register answers the client registration endpoint (RFC 7591, OIDC
// Registration): whom the policy lets in registers a client with what the
// policy offers.
func (p *Provider) Register(w http.ResponseWriter, r *http.Request) {
	answer, err := p.register(w, r)
	if err != nil {
		p.writeBearerError(w, r, err, "")
		return
	}
	writeJSON(w, http.StatusCreated, answer)
}

func (p *Provider) register(w http.ResponseWriter, r *http.Request) (registered, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return registered{}, oauthError(http.StatusMethodNotAllowed, "invalid_request", "This endpoint takes POST requests only.")
	}
	ctx, now := withRequest(w, r), p.now()
	bearer, err := registrationBearer(r)
	if err != nil {
		return registered{}, err
	}
	allowed := initialToken{}
	switch {
	case bearer != "":
		row, err := p.store.OneTime(ctx, kindInitialToken, bearerHash(bearer), now)
		if errors.Is(err, storage.ErrNotFound) || err == nil && p.epoch().voids(row.CreatedAt) {
			return registered{}, invalidToken(errors.New("initial access token is unknown, spent or has expired"))
		}
		if err != nil {
			return registered{}, fmt.Errorf("initial access token: %w", err)
		}
		if allowed, err = readInitialToken(row); err != nil {
			return registered{}, err
		}
	case p.registration.Mode != RegistrationOpen:
		return registered{}, &bearerError{status: http.StatusUnauthorized} // RFC 6750 §3.1: no error code
	}
	doc, err := readClientDocument(w, r)
	if err != nil {
		return registered{}, err
	}
	limit := p.readings // for strangers, who have not been counted yet
	if bearer != "" {
		limit = p.fetches
	}
	if err := p.admitFetch(limit, r, "", doc); err != nil {
		return registered{}, err
	}
	token, hash := newBearer(registrationTokenPrefix)
	c := DefaultClient()
	c.ID, c.Origin, c.RegistrationTokenHash = randomReadable(4, 5), originRegistration, hash
	if err := p.registry.catchUp(ctx); err != nil { // the resources as they are now
		return registered{}, err
	}
	offer := p.offer(allowed)
	if err := doc.apply(&c, offer); err != nil {
		return registered{}, err
	}
	offer.allowForMore(&c)
	counted := false
	created, secret, err := p.registrar.createClient(ctx, c, func(ctx context.Context, tx change) error {
		if bearer != "" { // whom the operator let in comes in
			return spendInitialToken(ctx, tx, bearer)
		}
		if !counted { // a transaction may run twice
			if p.registrations.failed("", r.RemoteAddr, now) {
				return tooMany("registrations")
			}
			counted = true
		}
		n, err := tx.CountClients(ctx, originRegistration)
		if err != nil {
			return err
		}
		if n >= int64(p.policy.MaxRegistered) {
			return busyFor(time.Hour, fmt.Errorf("%d clients have registered themselves, as many as may", n))
		}
		return nil
	})
	if err != nil {
		return registered{}, metadataError(err)
	}
	return p.newRegistered(created, secret, token), nil
}

// spendInitialToken takes one use of the token, in the transaction that
// registers the client: of any number at once no more succeed than it has uses.
func spendInitialToken(ctx context.Context, tx change, token string) error {
	row, err := tx.TakeOnce(ctx, kindInitialToken, bearerHash(token), tx.now)
	if errors.Is(err, storage.ErrConsumed) {
		return invalidToken(errors.New("initial access token was spent meanwhile"))
	}
	if err != nil {
		return fmt.Errorf("initial access token: %w", err)
	}
	left, err := readInitialToken(row)
	if err != nil {
		return err
	}
	if left.Uses--; left.Uses < 1 {
		return nil
	}
	data, err := json.Marshal(left)
	if err != nil {
		return err
	}
	row.Data = string(data)
	return tx.UseOnce(ctx, row, tx.now)
}

func readInitialToken(row storage.OneTime) (t initialToken, err error) {
	if err := json.Unmarshal([]byte(row.Data), &t); err != nil {
		return t, fmt.Errorf("initial access token: %w", err)
	}
	return t, nil
}

// Manage answers the client configuration endpoint (RFC 7592): a client reads,
// replaces or removes its own registration.
func (p *Provider) Manage(w http.ResponseWriter, r *http.Request) {
	if err := p.manage(w, r); err != nil {
		p.writeBearerError(w, r, err, "")
	}
}

func (p *Provider) manage(w http.ResponseWriter, r *http.Request) error {
	ctx, id := withRequest(w, r), r.PathValue("id")
	bearer, err := registrationBearer(r)
	if err != nil {
		return err
	}
	if bearer == "" {
		return &bearerError{status: http.StatusUnauthorized}
	}
	// Read from the database: the token of the client's last change is the one
	// that counts.
	c, err := p.store.Client(ctx, clip(id))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("client: %w", err)
	}
	if err != nil || !p.ownsRegistration(c, bearer) { // RFC 7592 §2: alike for a client that is gone
		return invalidToken(errors.New("not the registration access token of this client"))
	}
	if !c.Enabled {
		return errClientDisabled
	}
	switch r.Method {
	case http.MethodGet:
		if len(c.RegistrationTokenHash) > sha256.Size && !isFormer(c, bearer) {
			if err := p.endFormerToken(ctx, c.ID, bearer); err != nil {
				return err
			}
		}
		writeJSON(w, http.StatusOK, p.newRegistered(c, "", bearer))
		return nil
	case http.MethodPut:
		answer, err := p.replace(ctx, w, r, c, bearer)
		if err != nil {
			return metadataError(err)
		}
		writeJSON(w, http.StatusOK, answer)
		return nil
	case http.MethodDelete:
		if err := p.registrar.DeleteClient(ctx, c.ID); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		w.Header().Set("Allow", "GET, PUT, DELETE")
		return oauthError(http.StatusMethodNotAllowed, "invalid_request", "This endpoint takes GET, PUT and DELETE requests.")
	}
}

// errClientDisabled refuses a client that an operator has disabled.
var errClientDisabled = &bearerError{http.StatusForbidden, "insufficient_scope", "An operator has disabled this client.", nil}

// ownsRegistration says whether the token lets its bearer change the client's
// registration: it is the registration access token, or the one before that, as
// long as the answer which brought the newer one may have been lost: until the
// newer one is used, and no longer than a rotated secret works.
func (p *Provider) ownsRegistration(c storage.Client, token string) bool {
	if c.Origin != originRegistration {
		return false // what an operator made, or a document describes, has none
	}
	current, former := registrationTokens(c)
	hash := bearerHash(token)
	return len(current) > 0 && subtle.ConstantTimeCompare(hash, current) == 1 ||
		len(former) > 0 && subtle.ConstantTimeCompare(hash, former) == 1 && p.now().Before(c.UpdatedAt.Add(p.policy.SecretOverlap))
}

// registrationTokens returns the hashes of the client's registration access
// token and of the one before it, which are kept behind one another.
func registrationTokens(c storage.Client) (current, former []byte) {
	if len(c.RegistrationTokenHash) <= sha256.Size {
		return c.RegistrationTokenHash, nil
	}
	return c.RegistrationTokenHash[:sha256.Size], c.RegistrationTokenHash[sha256.Size:]
}

// isFormer says whether the token is the one before the client's newest.
func isFormer(c storage.Client, token string) bool {
	_, former := registrationTokens(c)
	return subtle.ConstantTimeCompare(bearerHash(token), former) == 1
}

// endFormerToken ends the registration access token before this one, whose
// first use shows that it has arrived.
func (p *Provider) endFormerToken(ctx context.Context, id, bearer string) error {
	err := p.registrar.update(ctx, func(ctx context.Context, tx change) error {
		c, err := tx.Client(ctx, id)
		if err != nil {
			return err
		}
		current, former := registrationTokens(c)
		if former == nil || subtle.ConstantTimeCompare(bearerHash(bearer), current) != 1 {
			return nil // changed meanwhile
		}
		c.RegistrationTokenHash = current
		return tx.UpdateClient(ctx, c)
	})
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("registration access token: %w", err)
	}
	return nil
}

// replace puts a new registration in the place of the client's (RFC 7592
// §2.2), and a new registration access token in that of the one it came with,
// which works on until the new one is used.
func (p *Provider) replace(ctx context.Context, w http.ResponseWriter, r *http.Request, c storage.Client, bearer string) (registered, error) {
	doc, err := readClientDocument(w, r)
	if err != nil {
		return registered{}, err
	}
	switch {
	case doc.ClientID != c.ID:
		return registered{}, invalidRequest("client_id is missing in the body, or another client's: send the one of this client (RFC 7592 section 2.2).")
	case doc.ClientSecret != "":
		ring := p.registry.current.Load().ring
		if !verifyClientSecret(ring, c, doc.ClientSecret, p.now()) {
			return registered{}, invalidRequest("client_secret is the one this client has; leave it out.")
		}
	}
	if p.registrations.failed(c.ID, r.RemoteAddr, p.now()) {
		return registered{}, tooMany("registrations")
	}
	if err := p.admitFetch(p.fetches, r, c.ID, doc); err != nil {
		return registered{}, err
	}
	if err := p.registry.catchUp(ctx); err != nil {
		return registered{}, err
	}
	token, hash := newBearer(registrationTokenPrefix)
	again := isFormer(c, bearer) // the answer to the last change never arrived
	updated, err := p.registrar.updateClient(ctx, c.ID, func(row *storage.Client) error {
		// Judged as the client is now: its body may have taken its time.
		switch {
		case !p.ownsRegistration(*row, bearer):
			return invalidToken(errors.New("the registration access token was replaced meanwhile"))
		case !row.Enabled:
			return errClientDisabled
		}
		fresh := DefaultClient()
		fresh.ID, fresh.Origin, fresh.RegistrationTokenHash = row.ID, row.Origin, slices.Concat(hash, bearerHash(bearer))
		keepOperators(&fresh, *row)
		// What an initial access token let it have beyond the policy, it keeps.
		offer := p.offer(initialToken{Grants: row.GrantTypes, Scopes: row.Scopes})
		if err := doc.apply(&fresh, offer); err != nil {
			return err
		}
		offer.allowForMore(&fresh)
		*row = fresh
		return nil
	})
	if errors.Is(err, storage.ErrNotFound) {
		return registered{}, invalidToken(errors.New("the client was removed meanwhile"))
	}
	if err != nil {
		return registered{}, err
	}
	secret := ""
	if hasSecret(updated) && (again || !hasSecret(c)) { // a secret may have been lost with that answer
		if secret, _, err = p.registrar.RotateClientSecret(ctx, c.ID, p.policy.SecretOverlap); err != nil {
			return registered{}, err
		}
	}
	return p.newRegistered(updated, secret, token), nil
}

// keepOperators keeps what only an operator says of a client as the row has it,
// whatever the client says of itself now.
func keepOperators(fresh *storage.Client, row storage.Client) {
	fresh.Roles, fresh.RefreshWindow, fresh.ClaimsInIDToken, fresh.AssertionAudTokenURL = row.Roles, row.RefreshWindow, row.ClaimsInIDToken, row.AssertionAudTokenURL
}

// admitFetch bounds how often clients make this server fetch something.
func (p *Provider) admitFetch(limit *throttle, r *http.Request, clientID string, doc clientDocument) error {
	if doc.SectorIdentifierURI != "" && limit.failed(clientID, r.RemoteAddr, p.now()) {
		return tooMany("registrations")
	}
	return nil
}

// fetchForRegistration returns what is at a sector_identifier_uri. Why it could
// not be fetched is not told: nobody is to learn what answers in here.
func (p *Provider) fetchForRegistration(ctx context.Context, uri string) ([]byte, error) {
	body, err := p.public.Get(ctx, uri)
	if err != nil {
		p.log.LogAttrs(ctx, slog.LevelInfo, "what is at the sector_identifier_uri of a registration could not be fetched",
			slog.String("request_id", originOf(ctx).RequestID), slog.String("cause", err.Error()))
		return nil, errors.New("there is nothing that can be fetched")
	}
	return body, nil
}

// offering is what a registration may choose from.
type offering struct {
	grants, scopes []string
	alone          []string // scopes for who acts without a person, whom nobody consents to
	owners         map[string]*storage.Resource
	withoutPKCE    bool // for who is confidential
}

func (p *Provider) offer(t initialToken) offering {
	var owners map[string]*storage.Resource
	if s := p.registry.current.Load(); s != nil {
		owners = s.owners
	}
	return offering{
		owners:      owners,
		grants:      distinct(append([]string{grantCode, grantRefresh}, t.Grants...)),
		scopes:      distinct(slices.Concat(oidcScopes, p.registration.Scopes, t.Scopes)),
		alone:       t.Scopes,
		withoutPKCE: p.registration.WithoutPKCE,
	}
}

// allowForMore adds, for a client that registers for some scopes of an API, what the
// API may later ask it for (RFC 6750 §3.1, insufficient_scope): the others on offer.
// Clients of the Model Context Protocol register for what the first answer names and
// keep that registration; and they ask for refresh tokens by scope when the metadata
// knows it. Each scope is a person's to grant all the same.
func (o offering) allowForMore(c *storage.Client) {
	if slices.Contains(c.GrantTypes, grantClientCredentials) { // nobody consents to that
		return
	}
	var more []string
	for _, s := range o.scopes {
		owner := o.owners[s]
		if owner != nil && slices.ContainsFunc(c.Scopes, func(asked string) bool { return o.owners[asked] == owner }) {
			more = append(more, s)
		}
	}
	if len(more) > 0 && slices.Contains(c.GrantTypes, grantRefresh) {
		more = append(more, scopeOffline)
	}
	c.Scopes = distinct(append(c.Scopes, more...))
}

// registrationBearer returns the token in the Authorization header, or "".
func registrationBearer(r *http.Request) (string, error) {
	header := r.Header.Values("Authorization")
	switch len(header) {
	case 0:
		return "", nil
	case 1:
		if scheme, token, _ := strings.Cut(header[0], " "); strings.EqualFold(scheme, "Bearer") && len(token) < 256 {
			return strings.TrimSpace(token), nil
		}
	}
	return "", invalidToken(errors.New("no bearer token, or several"))
}

// readClientDocument reads the JSON of a registration.
func readClientDocument(w http.ResponseWriter, r *http.Request) (clientDocument, error) {
	var doc clientDocument
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return doc, oauthError(http.StatusUnsupportedMediaType, "invalid_request", "Send the client metadata as application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			w.Header().Set("Connection", "close") // rather than read on what may never end
			return doc, oauthError(http.StatusRequestEntityTooLarge, "invalid_request", fmt.Sprintf("The body is larger than %d bytes.", maxBody))
		}
		return doc, invalidRequest("The body could not be read.").because(err)
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return doc, invalidMetadata("The body is no JSON object of client metadata, or a member is of the wrong kind (RFC 7591 section 2).").because(err)
	}
	return doc, nil
}

// RFC 7591 §3.2.2.
func invalidMetadata(description string) *Error {
	return oauthError(http.StatusBadRequest, "invalid_client_metadata", description)
}

// metadataError says to a client what is wrong with its registration.
func metadataError(err error) error {
	var faults *InvalidError
	if !errors.As(err, &faults) {
		return err
	}
	e := invalidMetadata(plainASCII(faults.Faults[0].String()))
	if strings.HasPrefix(faults.Faults[0].Field, "redirect_uris") {
		e.Code = "invalid_redirect_uri"
	}
	return e.because(err)
}

// plainASCII keeps to the characters of RFC 6749 §5.2 and a sensible length.
func plainASCII(s string) string {
	s = strings.NewReplacer("§", "section ", `"`, "'", `\`, "?").Replace(s)
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return '?'
		}
		return c
	}, s)
}

// removeUnused removes clients that no operator registered and that nobody uses.
func (p *Provider) removeUnused(ctx context.Context) error {
	for _, origin := range []string{originRegistration, originDocument} {
		if err := p.removeUnusedOf(ctx, origin); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) removeUnusedOf(ctx context.Context, origin string) error {
	now := p.now()
	unused := func(ctx context.Context, r storage.Reader) ([]string, error) {
		return r.UnusedClients(ctx, origin, now.Add(-p.policy.RegisteredNeverUsed), now.Add(-p.policy.RegisteredUnused), 20)
	}
	if ids, err := unused(ctx, p.store); err != nil || len(ids) == 0 {
		return err
	}
	return p.registrar.update(ctx, func(ctx context.Context, tx change) error {
		ids, err := unused(ctx, tx) // as it is now
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := tx.deleteClient(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

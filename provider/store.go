package provider

import (
	"context"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/storage"
)

// client is a storage.Client as fosite wants to see it. It is shared between
// requests and never written to.
type client struct {
	storage.Client
	extra ClientExtra
	keys  *jose.JSONWebKeySet // registered by value, or nil
}

func newClient(row storage.Client) *client {
	c := &client{Client: row, extra: ReadClientExtra(row)}
	if row.JWKS != "" {
		// Registration refuses what does not parse; a set that still does
		// not leaves the client without keys, so that it fails to authenticate.
		if set, err := parseClientKeys([]byte(row.JWKS)); err == nil {
			c.keys = set
		}
	}
	return c
}

// The methods of fosite.Client. fosite never sees a secret's hash: our own
// client authentication judges secrets.
func (c *client) GetID() string                      { return c.ID }
func (c *client) GetHashedSecret() []byte            { return nil }
func (c *client) GetRedirectURIs() []string          { return c.RedirectURIs }
func (c *client) GetGrantTypes() fosite.Arguments    { return c.GrantTypes }
func (c *client) GetResponseTypes() fosite.Arguments { return fosite.Arguments{"code"} }
func (c *client) GetScopes() fosite.Arguments        { return c.Scopes }
func (c *client) IsPublic() bool                     { return c.AuthMethod == authNone }
func (c *client) GetAudience() fosite.Arguments      { return nil }

// fositeStore is the storage fosite asks for. Our own handlers do the rest,
// so it needs to know clients only.
type fositeStore struct{ registry *registry }

func (s fositeStore) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	v, err := s.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.registry.client(ctx, v, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fosite.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Assertions are judged by our own client authentication, which alone records
// their use; fosite's stock strategy must never be reached.
var errStockAssertion = errors.New("fosite's own assertion handling was called")

func (fositeStore) ClientAssertionJWTValid(context.Context, string) error {
	return errStockAssertion
}

func (fositeStore) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return errStockAssertion
}

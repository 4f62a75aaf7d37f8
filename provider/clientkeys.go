package provider

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage"
)

const (
	// clientKeysCooldown is the least time between two fetches of one
	// jwks_uri, whatever the requests ask for.
	clientKeysCooldown = 30 * time.Second
	// clientKeysMaxAge is how long a fetched set is used before it is fetched again.
	clientKeysMaxAge = 15 * time.Minute
)

// remoteKeys fetches clients' jwks_uri documents, each at most once per
// cool-down and never twice at the same time.
type remoteKeys struct {
	outbound *Outbound
	entries  *cache[string, *remoteSet]
	mu       sync.Mutex // held while an entry is made
}

type remoteSet struct {
	mu        sync.Mutex // held during the fetch, so that others wait for it
	set       *jose.JSONWebKeySet
	fetchedAt time.Time // of set
	triedAt   time.Time
	err       error // of the last try
}

func newRemoteKeys(outbound *Outbound, capacity int) *remoteKeys {
	return &remoteKeys{outbound: outbound, entries: newCache[string, *remoteSet](capacity)}
}

// get returns the set published at uri. It fetches when the set is old or
// lacks kid, unless the cool-down forbids: then what is known has to do.
func (k *remoteKeys) get(ctx context.Context, uri, kid string, now time.Time) (*jose.JSONWebKeySet, error) {
	k.mu.Lock()
	entry, ok := k.entries.get(uri)
	if !ok {
		entry = &remoteSet{}
		k.entries.put(uri, entry)
	}
	k.mu.Unlock()

	entry.mu.Lock()
	defer entry.mu.Unlock()
	current := entry.set != nil && now.Sub(entry.fetchedAt) < clientKeysMaxAge &&
		(kid == "" || len(entry.set.Key(kid)) > 0)
	if !current && (entry.triedAt.IsZero() || now.Sub(entry.triedAt) >= clientKeysCooldown) {
		entry.triedAt = now
		body, err := k.outbound.Get(ctx, uri)
		if err == nil {
			var set *jose.JSONWebKeySet
			if set, err = parseClientKeys(body); err == nil {
				entry.set, entry.fetchedAt = set, now
			}
		}
		entry.err = err
	}
	if entry.set == nil {
		return nil, fmt.Errorf("jwks_uri: %w", entry.err)
	}
	return entry.set, nil
}

// clientKeys returns the keys that may verify the client's assertions.
func (p *Provider) clientKeys(ctx context.Context, c *client, kid string, now time.Time) ([]jose.JSONWebKey, error) {
	switch {
	case c.AuthMethod != authPrivateKeyJWT:
		return nil, errors.New("client is not registered for " + authPrivateKeyJWT)
	case c.keys != nil:
		return c.keys.Keys, nil
	case c.JWKSURI != "":
		set, err := p.remoteKeys.get(ctx, c.JWKSURI, kid, now)
		if err != nil {
			return nil, err
		}
		return set.Keys, nil
	default:
		return nil, fmt.Errorf("client has no keys: %w", storage.ErrNotFound)
	}
}

// checkClientKey refuses keys that are not public, not asymmetric or too weak.
func checkClientKey(key jose.JSONWebKey) error {
	if !key.Valid() || !key.IsPublic() {
		return errors.New("want a public key: leave the private half with the client")
	}
	switch pub := key.Key.(type) {
	case *rsa.PublicKey:
		if pub.N.BitLen() < 2048 || pub.E < 3 {
			return errors.New("RSA keys need at least 2048 bits") // RFC 7518 §3.3
		}
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return errors.New("EC keys must be on P-256, for ES256")
		}
	case ed25519.PublicKey:
	default:
		return errors.New("want an RSA, P-256 or Ed25519 key")
	}
	return nil
}

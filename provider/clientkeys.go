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
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage"
)

const (
	// clientKeysCooldown is the least time between two fetches of one
	// jwks_uri, whatever the requests ask for.
	clientKeysCooldown = 30 * time.Second
	// clientKeysFresh is how long a fetched set is used before it is fetched
	// again, clientKeysMaxAge how long while fetching fails: a key that the
	// client withdrew must not live on because its server is kept from us.
	clientKeysFresh  = 15 * time.Minute
	clientKeysMaxAge = time.Hour
	// clientKeysWaiting is how many requests wait for one jwks_uri at most: where
	// its server is silent, more would only be more of them.
	clientKeysWaiting = 16
)

// errKeysUnavailable says that a client's keys could not be fetched. It is no
// statement about the client's credentials.
var errKeysUnavailable = errors.New("the client's jwks_uri cannot be fetched")

// remoteKeys fetches clients' jwks_uri documents, each at most once per
// cool-down and never twice at the same time.
type remoteKeys struct {
	outbound *Outbound
	mu       sync.Mutex // held while an entry is made
	entries  *cache[string, *remoteSet]
}

type remoteSet struct {
	known   atomic.Pointer[fetchedSet]
	waiting atomic.Int32 // requests

	mu      sync.Mutex // held during a fetch: those who need its outcome wait
	triedAt time.Time
	err     error // of the last try
}

type fetchedSet struct {
	*jose.JSONWebKeySet
	at time.Time
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

	if set := entry.known.Load(); set.serves(kid, now) {
		return set.JSONWebKeySet, nil // no waiting for a fetch that somebody else needs
	}
	defer entry.waiting.Add(-1)
	if entry.waiting.Add(1) > clientKeysWaiting {
		return nil, fmt.Errorf("%w: too many requests wait for it", errKeysUnavailable)
	}
	entry.mu.Lock()
	defer entry.mu.Unlock()
	set := entry.known.Load()
	if !set.serves(kid, now) && (entry.triedAt.IsZero() || now.Sub(entry.triedAt) >= clientKeysCooldown) {
		entry.triedAt = now
		// The fetch is for everybody: whoever caused it may hang up.
		fetched, err := k.fetch(context.WithoutCancel(ctx), uri, now)
		if entry.err = err; err == nil {
			set = fetched
			entry.known.Store(set)
		}
	}
	switch {
	case set != nil && now.Sub(set.at) < clientKeysMaxAge:
		return set.JSONWebKeySet, nil
	case entry.err != nil:
		return nil, fmt.Errorf("%w: %w", errKeysUnavailable, entry.err)
	default:
		return nil, errKeysUnavailable
	}
}

// serves says whether the set is fresh and has the key asked for.
func (s *fetchedSet) serves(kid string, now time.Time) bool {
	return s != nil && now.Sub(s.at) < clientKeysFresh && (kid == "" || len(s.Key(kid)) > 0)
}

func (k *remoteKeys) fetch(ctx context.Context, uri string, now time.Time) (*fetchedSet, error) {
	ctx, cancel := context.WithTimeout(ctx, outboundTimeout)
	defer cancel()
	body, err := k.outbound.Get(ctx, uri)
	if err != nil {
		return nil, err
	}
	set, err := parseClientKeys(body)
	if err != nil {
		return nil, err
	}
	return &fetchedSet{set, now}, nil
}

// clientKeys returns the keys that may verify what the client signs.
func (p *Provider) clientKeys(ctx context.Context, c *client, kid string, now time.Time) ([]jose.JSONWebKey, error) {
	switch {
	case c.keys != nil:
		return c.keys.Keys, nil
	case c.JWKSURI != "":
		remote := p.remoteKeys
		switch c.Origin {
		case originRegistration:
			remote = p.publicKeys
		case originDocument:
			remote = p.documents.keys
		}
		set, err := remote.get(ctx, c.JWKSURI, kid, now)
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
		if pub.N.BitLen() > 8192 || pub.E > 65537 {
			return errors.New("RSA keys have at most 8192 bits and no larger exponent than 65537: others cost the server too much")
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

package provider

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// statusIndexes hands out places in the status lists. A replica takes some at
// once, so that sign-ins do not wait for each other's, and hands them out in
// random order, so that who follows whom does not show. Those it has left when
// it stops stay unused.
type statusIndexes struct {
	store storage.Store
	mu    sync.Mutex
	free  []int64
}

// take returns a place that nobody had; those before from are of the time before
// a restore, of which nobody knows any more who had them.
func (s *statusIndexes) take(ctx context.Context, from int64) (int64, error) {
	const batch = 1024
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 || s.free[0] < from {
		s.free = nil
		var first int64
		err := s.store.Update(ctx, func(ctx context.Context, tx storage.Tx) (err error) {
			first, err = tx.TakeStatusIndexes(ctx, batch)
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("status index: %w", err)
		}
		for _, i := range rand.Perm(batch) {
			s.free = append(s.free, first+int64(i))
		}
	}
	last := len(s.free) - 1
	index := s.free[last]
	s.free = s.free[:last]
	return index, nil
}

// listsStatus says whether a token for the audience names its place in a list.
func (s *snapshot) listsStatus(audience []string) bool {
	return slices.ContainsFunc(audience, func(uri string) bool {
		r := s.resources[uri]
		return r != nil && r.StatusList
	})
}

func (p *Provider) statusListURI(number int64) string {
	return p.issuer.Endpoint(PathStatusLists + "/" + strconv.FormatInt(number, 10))
}

func (p *Provider) newStatusLists() *revocation.StatusLists {
	return revocation.NewStatusLists(revocation.StatusConfig{
		Store: p.store, URI: p.statusListURI, Issuer: p.issuer.String(), Now: p.clock.local, Shared: p.clock.shared,
		Memory: p.policy.RevokedUntil(p.now()).Sub(p.now()),
		Restored: func() (time.Time, int64) {
			e := p.epoch()
			return e.at, e.status
		},
		Sign: func(typ string, claims []byte) (string, error) {
			s := p.registry.current.Load()
			if s == nil {
				return "", errors.New("the keys were not read yet")
			}
			return s.ring.Sign(keys.ES256, typ, claims, p.now())
		},
	})
}

// StatusList serves a list of which grants' tokens are invalid (Token Status
// List §8.1, §8.2). The path's last part is its number.
func (p *Provider) StatusList(w http.ResponseWriter, r *http.Request) {
	if err := p.statusList(w, r); err != nil {
		p.writeError(w, r, err)
	}
}

func (p *Provider) statusList(w http.ResponseWriter, r *http.Request) error {
	text := r.PathValue("list")
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(number, 10) != text {
		return oauthError(http.StatusNotFound, "not_found", "There is no such status list.")
	}
	list, err := p.statusLists.List(r.Context(), number)
	if errors.Is(err, revocation.ErrNoStatusList) {
		return oauthError(http.StatusNotFound, "not_found", "There is no such status list.")
	}
	if err != nil {
		return err
	}
	// A cache serves it no longer than a verifier may keep it (§13.7).
	newDocument(list.JWT, list.ETag, "application/"+revocation.TypStatusList, revocation.StatusTTL/2).serve(w, r)
	return nil
}

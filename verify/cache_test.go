package verify_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
)

func TestCache(t *testing.T) {
	key := newKey("k1", "ES256")
	var ahead atomic.Int64 // seconds after epoch
	now := verify.WithNow(func() time.Time { return epoch.Add(time.Duration(ahead.Load()) * time.Second) })
	at := ahead.Store

	t.Run("V36 a repeated token is not verified again", func(t *testing.T) {
		v := newProvider(key).verifier(t)
		for range 3 {
			accepted(t, v, key.token())
		}
		token := key.token()
		for range 3 {
			accepted(t, v, token)
		}
		if s := v.Stats(); s.Verified != 4 || s.Repeated != 2 || s.Refused != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("V36 expires though remembered", func(t *testing.T) {
		at(0)
		v := newProvider(key).verifier(t, now)
		token := key.token()
		accepted(t, v, token)
		at(629)
		accepted(t, v, token)
		at(630)
		refused(t, v, token, verify.ErrExpired)
	})
	t.Run("V36 not before, though remembered", func(t *testing.T) {
		at(0)
		v := newProvider(key).verifier(t, now)
		token := key.token(set("nbf", epoch.Unix()))
		accepted(t, v, token)
		at(-31)
		refused(t, v, token, verify.ErrNotYetValid)
	})
	t.Run("V36 the whole token is the key", func(t *testing.T) {
		v := newProvider(key).verifier(t)
		token := key.token()
		accepted(t, v, token)
		h, p, s := parts(token)
		other := newKey("k1", "ES256")
		refused(t, v, h+"."+p+"."+b64(string(other.rawSignature(h+"."+p))), verify.ErrSignature)
		refused(t, v, h+"."+b64(claims(set("sub", "root")))+"."+s, verify.ErrSignature)
	})
	t.Run("V36 another policy remembers nothing of it", func(t *testing.T) {
		p := newProvider(key)
		token := key.token()
		accepted(t, p.verifier(t), token)
		strict := p.verifier(t, verify.WithAlgorithms("RS256"))
		refused(t, strict, token, verify.ErrAlgorithm)
	})
	t.Run("V36 refused tokens are not remembered", func(t *testing.T) {
		at(0)
		v := newProvider(key).verifier(t, now)
		token := key.token(set("nbf", epoch.Unix()+100))
		for range 2 {
			refused(t, v, token, verify.ErrNotYetValid)
		}
		at(100)
		accepted(t, v, token)
		if s := v.Stats(); s.Verified != 1 || s.Repeated != 0 || s.Refused != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("bounded in entries", func(t *testing.T) {
		v := newProvider(key).verifier(t, verify.WithCacheEntries(64))
		var tokens []string
		for i := range 300 {
			tokens = append(tokens, key.token(set("jti", fmt.Sprint(i))))
			accepted(t, v, tokens[i])
		}
		before := v.Stats().Repeated
		for i := range tokens {
			accepted(t, v, tokens[len(tokens)-1-i])
		}
		if n := v.Stats().Repeated - before; n == 0 || n > 64 {
			t.Errorf("%d of 64 remembered", n)
		}
	})
	t.Run("bounded in bytes", func(t *testing.T) {
		v := newProvider(key).verifier(t)
		token := key.token(set("scope", strings.Repeat("a ", 1500)))
		for range 2 {
			accepted(t, v, token)
		}
		if s := v.Stats(); s.Repeated != 0 {
			t.Error("a token of 1,500 scopes is remembered")
		}
	})
	t.Run("expired tokens make room", func(t *testing.T) {
		at(0)
		v := newProvider(key).verifier(t, now, verify.WithCacheEntries(4))
		for i := range 4 {
			accepted(t, v, key.token(set("jti", fmt.Sprint(i))))
		}
		at(3600)
		var tokens []string
		for i := range 4 {
			tokens = append(tokens, key.token(set("jti", fmt.Sprint("new", i)), set("iat", epoch.Unix()+3600), set("exp", epoch.Unix()+7200)))
			accepted(t, v, tokens[i])
		}
		for _, token := range tokens {
			accepted(t, v, token)
		}
		if s := v.Stats(); s.Repeated != 4 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("many readers and writers", func(t *testing.T) {
		v := newProvider(key).verifier(t, verify.WithCacheEntries(8))
		var tokens []string
		for i := range 32 {
			tokens = append(tokens, key.token(set("sub", fmt.Sprint("u", i))))
		}
		var turn atomic.Int64
		atOnce(t, 128, func() error {
			i := int(turn.Add(1)) % len(tokens)
			c, err := v.Verify(t.Context(), tokens[i])
			if err == nil && c.Subject() != fmt.Sprint("u", i) {
				return errors.New("claims of another token")
			}
			return err
		}, nil)
	})
}

package revocation

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// The types of the feed's signed messages.
const (
	typBatch     = "revocation-batch+jwt"
	typHeartbeat = "revocation-heartbeat+jwt"
	typSnapshot  = "revocation-snapshot+jwt"
)

// preamble is what every message has. Times are Unix milliseconds, except
// iat, which is a NumericDate (RFC 7519 §2).
type preamble struct {
	Issuer   string `json:"iss"`
	IssuedAt int64  `json:"iat"`
	FeedID   string `json:"feed_id"`
	ReadAt   int64  `json:"read_at"`
}

type batchClaims struct {
	preamble
	From   int64   `json:"from"`
	To     int64   `json:"to"`
	Prev   string  `json:"prev"`
	Chain  string  `json:"chain"`
	Events []event `json:"events"`
}

type event struct {
	Seq       int64  `json:"seq"`
	Kind      string `json:"kind"`
	Effect    string `json:"effect"`
	Hash      string `json:"hash"`
	NotBefore int64  `json:"not_before,omitempty"`
	Until     int64  `json:"until"`
	At        int64  `json:"at"`
}

type heartbeatClaims struct {
	preamble
	Seq   int64  `json:"seq"`
	Chain string `json:"chain"`
}

func (f *Feed) preamble(feedID string, readAt time.Time) preamble {
	return preamble{f.cfg.Issuer, f.cfg.Shared(f.cfg.Now()).Unix(), feedID, readAt.UnixMilli()}
}

// frameKey names a signed message. A heartbeat has no from, but the time it
// speaks of.
type frameKey struct {
	life, from, to, at int64
}

// batch returns the signed entries from..to of h.
func (f *Feed) batch(h *head, from, to int64) ([]byte, error) {
	return f.frame(frameKey{life: h.life, from: from, to: to}, typBatch, func() any {
		// As of readAt the log had no more than this: for what is not the end
		// of it, that is when its last entry was appended.
		readAt := h.read.Load().at
		if last := h.tail[to-h.first-1].CreatedAt; to < h.seq() && last.Before(readAt) {
			readAt = last
		}
		c := batchClaims{
			preamble: f.preamble(h.feedID, readAt), From: from, To: to,
			Prev: encode(h.chainAt(from - 1)), Chain: encode(h.chainAt(to)),
		}
		for _, e := range h.tail[from-h.first-1 : to-h.first] {
			c.Events = append(c.Events, event{
				Seq: e.Seq, Kind: e.Key.Kind, Effect: e.Effect, Hash: encode(e.Key.Hash),
				NotBefore: millis(e.NotBefore), Until: millis(e.Until), At: millis(e.CreatedAt),
			})
		}
		return c
	})
}

// heartbeat returns the signed statement that the log ended with h at r.
func (f *Feed) heartbeat(h *head, r *reading) ([]byte, error) {
	return f.frame(frameKey{life: h.life, to: h.seq(), at: r.at.UnixMilli()}, typHeartbeat, func() any {
		return heartbeatClaims{preamble: f.preamble(h.feedID, r.at), Seq: h.seq(), Chain: encode(h.chainAt(h.seq()))}
	})
}

// frame returns the signed message of this key, made once.
func (f *Feed) frame(key frameKey, typ string, claims func() any) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if jws, ok := f.frames[key]; ok {
		return jws, nil
	}
	jws, err := f.sign(typ, claims())
	if err != nil {
		return nil, err
	}
	if len(f.order) >= keptFrames {
		delete(f.frames, f.order[0])
		f.order = f.order[1:]
	}
	f.frames[key] = jws
	f.order = append(f.order, key)
	return jws, nil
}

func (f *Feed) sign(typ string, claims any) ([]byte, error) {
	body, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("revocation feed: %w", err)
	}
	jws, err := f.cfg.Sign(typ, body)
	if err != nil {
		return nil, fmt.Errorf("revocation feed: %w", err)
	}
	f.signed.Add(1)
	return []byte(jws), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

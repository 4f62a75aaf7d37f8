package web

import (
	"context"
	"encoding/json"
	"net/http"
)

// Arrival is how a request reached a server, as `signet doctor` is told it.
type Arrival struct {
	Peer      string   `json:"peer"`      // whose connection it came on
	Trusted   bool     `json:"trusted"`   // the peer may say whom it speaks for
	Forwarded []string `json:"forwarded"` // X-Forwarded-For, as it came
	Address   string   `json:"address"`   // whose request it was taken for
	Server    string   `json:"server"`    // another one for each process
	Version   string   `json:"version"`
}

type peerKey struct{}

// withPeer keeps what clientAddress replaces, for doctor.
func withPeer(r *http.Request, peer string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), peerKey{}, peer))
}

// doctor tells whoever has a pass how the request came here. For everybody else
// there is no such page.
func (s *Server) doctor(w http.ResponseWriter, r *http.Request) {
	if !s.provider.IsDoctor(r.Context(), r.Header.Get("Authorization")) {
		s.notFound(w, r)
		return
	}
	peer, _ := r.Context().Value(peerKey{}).(string)
	var forwarded []string
	if r.Header.Get("X-Forwarded-For") != "" {
		forwarded = hops(r.Header)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(Arrival{ // a client that is gone needs no answer
		Peer: peer, Trusted: contains(*s.trusted.Load(), peer), Forwarded: forwarded, Address: r.RemoteAddr,
		Server: s.instance, Version: s.version,
	})
}

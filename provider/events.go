package provider

import (
	"context"
	"log/slog"
	"net/http"
)

// The audit events that requests cause. Those of operators are in admin.go.
const (
	eventTokenRevoked     = "token.revoked"
	eventGrantRevoked     = "grant.revoked"
	eventConsentGranted   = "consent.granted"
	eventConsentWithdrawn = "consent.withdrawn"
	eventSignedIn         = "session.started"
	eventSessionEnded     = "session.ended"
	eventPasswordChanged  = "user.password_changed"
	eventInvitationUsed   = "user.invitation_used"
	eventKey              = "key." // and what happened to it: a keys.EventName
)

// Origin is where a request came from, for the audit log.
type Origin struct {
	Address   string
	RequestID string
}

type originKey struct{}

// WithOrigin returns a context for what a request causes.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

func originOf(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}

// Noter is a ResponseWriter that takes facts for the request's line in the log:
// one line costs half of what two do, and tells the whole story.
type Noter interface{ Note(facts ...slog.Attr) }

// withRequest is WithOrigin for an endpoint of our own.
func withRequest(w http.ResponseWriter, r *http.Request) context.Context {
	return WithOrigin(r.Context(), Origin{Address: r.RemoteAddr, RequestID: w.Header().Get(RequestIDHeader)})
}

package provider

import (
	"time"

	"github.com/ory/fosite"
)

// session is what a token request has come to so far. fosite carries it from
// a handler's first half, which decides, to its second, which signs.
type session struct {
	view    view
	award   award
	subject string
	tokenID string // jti of what was signed, for the log

	token  *grantToken // the code or refresh token presented, if one was
	person *person     // whose grant it is of
}

// The methods of fosite.Session. Lifetimes are ours (see policy.go), so what
// fosite would set is not kept.
func (*session) SetExpiresAt(fosite.TokenType, time.Time)       {}
func (*session) GetExpiresAt(fosite.TokenType) (zero time.Time) { return zero }
func (*session) GetUsername() string                            { return "" }
func (s *session) GetSubject() string                           { return s.subject }

func (s *session) Clone() fosite.Session {
	c := *s
	return &c
}

package web_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Who hangs up costs no more than who waits: what the database is at is finished,
// and the answer that nobody reads is what it would have been.
func TestHangingUpChangesNothing(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/token", strings.NewReader("grant_type=client_credentials&client_id=nobody&client_secret=x"))
		req.Header.Set("Content-Type", formType)
		w := httptest.NewRecorder()
		s.public.ServeHTTP(w, req)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

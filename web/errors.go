package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, http.StatusNotFound)
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, http.StatusMethodNotAllowed)
}

// problem is the one table of what a person, or a program, is told when no
// protocol endpoint was reached.
func problem(status int) (code, title, advice string) {
	switch status {
	case http.StatusNotFound:
		return "not_found", "This page does not exist", "Check the address, or go back to where you came from."
	case http.StatusMethodNotAllowed:
		return "method_not_allowed", "This page cannot be used that way", "Go back and try again from the page you came from."
	default:
		return "server_error", "Something went wrong on our side", "Try again in a moment. If it stays, tell the operator the request id below."
	}
}

// fail answers with a page to whoever asked for one, and with JSON otherwise.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, status int) {
	code, title, advice := problem(status)
	requestID := w.Header().Get(provider.RequestIDHeader)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.page(w, r, status, templates.Error(templates.ErrorView{
			Base: s.issuer.Path(), Title: title, Advice: advice, RequestID: requestID,
		}))
		return
	}
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": title + ". " + advice, "request_id": requestID})
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

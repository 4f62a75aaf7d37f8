package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/signet-oidc/signet/templates"
)

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, http.StatusNotFound)
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, http.StatusMethodNotAllowed)
}

// problem is the one table of what a program is told, and which page a person
// sees, when no protocol endpoint was reached.
func problem(status int) (code, description string, kind templates.ErrorKind) {
	switch status {
	case http.StatusNotFound:
		return "not_found", "This page does not exist.", templates.ErrorNotFound
	case http.StatusMethodNotAllowed:
		return "method_not_allowed", "This page cannot be used that way.", templates.ErrorMethod
	default:
		return "server_error", "Something went wrong on our side. Try again in a moment.", templates.ErrorServer
	}
}

// fail answers with a page to whoever asked for one, and with JSON otherwise.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, status int) {
	code, description, kind := problem(status)
	view := s.view(w, r)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.page(w, r, status, templates.Error(templates.ErrorView{Page: view, Kind: kind}))
		return
	}
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": description, "request_id": view.RequestID})
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

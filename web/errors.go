package web

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/templates"
)

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, http.StatusNotFound)
}

// methodNotAllowed says which methods there are (RFC 9110 §15.5.6).
func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	routes := chi.RouteContext(r.Context()).Routes
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
		if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
			w.Header().Add("Allow", method)
		}
	}
	s.fail(w, r, http.StatusMethodNotAllowed)
}

// forbidden refuses a form that another site posted.
func (s *Server) forbidden(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, http.StatusForbidden)
}

// problem is the one table of what a program is told, and which page a person
// sees, when no protocol endpoint was reached.
func problem(status int) (code, description string, kind templates.ErrorKind) {
	switch status {
	case http.StatusForbidden:
		return "forbidden", "The request came from another site.", templates.ErrorForbidden
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
		s.page(w, r, status, content{body: templates.Error(templates.ErrorView{Page: view, Kind: kind})})
		return
	}
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": description, "request_id": view.RequestID})
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// refuse answers an error of a page: it goes to the app when the app is to be
// told, and otherwise the person reads what happened and what to do. a is the
// flow, or nil.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, a *provider.Authorization, err error) {
	var redirect *provider.Redirect
	if errors.As(err, &redirect) {
		s.answer(w, r, a, redirect)
		return
	}
	if a != nil && errors.Is(err, provider.ErrNoSession) { // it ended while this was decided
		s.proceed(w, r, a, nil)
		return
	}
	view := templates.ErrorView{Page: s.flowView(w, r, a)}
	status := s.explain(w, &view, err)
	if status >= http.StatusInternalServerError {
		level := slog.LevelError
		if busy := (*provider.BusyError)(nil); errors.As(err, &busy) {
			level = slog.LevelInfo // a limit held; nothing is wrong here
		}
		s.log.Log(r.Context(), level, "page failed", "request_id", view.RequestID, "path", r.URL.Path, "cause", err.Error())
	}
	s.page(w, r, status, content{body: templates.Error(view)})
}

// explain is the one table of which page an error shows, and its status.
func (s *Server) explain(w http.ResponseWriter, view *templates.ErrorView, err error) int {
	var page *provider.PageError
	var busy *provider.BusyError
	switch {
	case errors.As(err, &page):
		view.Kind = pageKind(page.Kind)
		view.Developer = []templates.Parameter{{Name: "error_description", Value: page.Description}}
		if page.Kind == provider.PageMethod {
			w.Header().Set("Allow", "GET, POST")
		}
		return page.Status
	case errors.Is(err, provider.ErrFlowExpired), errors.Is(err, provider.ErrFlowSpent):
		view.Kind = templates.ErrorExpired
		return http.StatusBadRequest
	case errors.Is(err, provider.ErrFlowInvalid):
		view.Kind = templates.ErrorOtherBrowser
		return http.StatusBadRequest
	case errors.Is(err, provider.ErrSwitched):
		view.Kind, view.Retry = templates.ErrorOtherUser, s.path(pathAccount)
		return http.StatusConflict
	case errors.Is(err, provider.ErrInvitation):
		view.Kind, view.Retry = templates.ErrorLink, s.path(pathAccount)
		return http.StatusGone
	case errors.As(err, &busy):
		view.Kind, view.Wait = templates.ErrorUnavailable, busy.RetryAfter
		retryAfter(w, busy.RetryAfter)
		return http.StatusServiceUnavailable
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		view.Kind = templates.ErrorUnavailable
		retryAfter(w, 2*time.Second)
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func pageKind(kind provider.PageKind) templates.ErrorKind {
	switch kind {
	case provider.PageUnknownClient, provider.PageClientDisabled:
		return templates.ErrorBadClient
	case provider.PageBadRedirect:
		return templates.ErrorBadRedirect
	case provider.PageMethod:
		return templates.ErrorMethod
	default:
		return templates.ErrorBadRequest
	}
}

// retryAfter says when to come back, in whole seconds (RFC 9110 §10.2.3).
func retryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int((wait+time.Second-1)/time.Second))))
}

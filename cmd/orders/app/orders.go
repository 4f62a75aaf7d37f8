package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/signet-oidc/signet/verify"
)

const (
	defaultPage = 20
	maxPage     = 100
	maxItem     = 200 // characters
	maxQuantity = 1000
	maxKey      = 255 // bytes of an Idempotency-Key
)

// caller is the owner a request acts for. The claims are there, and true,
// because the verifier's middleware stands before every handler that asks.
func caller(ctx context.Context) owner {
	claims := verify.ClaimsFrom(ctx)
	return owner{issuer: claims.Issuer(), subject: claims.Subject()}
}

// list is GET /orders?limit=&after=: the caller's orders, newest first. next is
// the value of after for the following page and is missing on the last one.
func (a *App) list(w http.ResponseWriter, r *http.Request) {
	limit, after := defaultPage, ""
	if s := r.URL.Query().Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxPage {
			problem(w, http.StatusBadRequest, fmt.Sprintf("limit must be a number from 1 to %d.", maxPage))
			return
		}
		limit = n
	}
	if s := r.URL.Query().Get("after"); s != "" {
		id, err := uuid.Parse(s)
		if err != nil {
			problem(w, http.StatusBadRequest, "after must be the next value of an earlier answer.")
			return
		}
		after = id.String()
	}
	orders, err := a.store.list(r.Context(), caller(r.Context()), after, limit+1) // one more tells whether a page follows
	if err != nil {
		a.fail(w, r, err)
		return
	}
	page := struct {
		Items []order `json:"items"`
		Next  string  `json:"next,omitempty"`
	}{Items: orders}
	if len(orders) > limit {
		page.Items = orders[:limit]
		page.Next = orders[limit-1].ID
	}
	answer(w, http.StatusOK, page)
}

// create is POST /orders with {"item", "quantity"}. A request repeated with the
// same Idempotency-Key gets the answer of the first one and orders nothing.
func (a *App) create(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Item     string `json:"item"`
		Quantity int    `json:"quantity"`
	}
	if !decode(w, r, &body) {
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if fault := cmp.Or(checkItem(body.Item), checkQuantity(body.Quantity), checkKey(key)); fault != "" {
		problem(w, http.StatusBadRequest, fault)
		return
	}
	created, err := a.store.create(r.Context(), caller(r.Context()), key, body.Item, body.Quantity, a.now())
	switch {
	case errors.Is(err, errKeyReused):
		problem(w, http.StatusUnprocessableEntity, "This Idempotency-Key was used for a different order.")
	case err != nil:
		a.fail(w, r, err)
	default:
		w.Header().Set("Location", "/orders/"+created.ID)
		answer(w, http.StatusCreated, created)
	}
}

// get is GET /orders/{id}. Somebody else's order looks like none at all.
func (a *App) get(w http.ResponseWriter, r *http.Request) {
	found, err := a.store.get(r.Context(), caller(r.Context()), chi.URLParam(r, "id"))
	switch {
	case errors.Is(err, errNotFound):
		noSuchOrder(w)
	case err != nil:
		a.fail(w, r, err)
	default:
		answer(w, http.StatusOK, found)
	}
}

// delete is DELETE /orders/{id}. Somebody else's order looks like none at all.
func (a *App) delete(w http.ResponseWriter, r *http.Request) {
	err := a.store.delete(r.Context(), caller(r.Context()), chi.URLParam(r, "id"))
	switch {
	case errors.Is(err, errNotFound):
		noSuchOrder(w)
	case err != nil:
		a.fail(w, r, err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// summary is GET /reports/summary: totals over all owners.
func (a *App) summary(w http.ResponseWriter, r *http.Request) {
	sum, err := a.store.summarise(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, sum)
}

func noSuchOrder(w http.ResponseWriter) {
	problem(w, http.StatusNotFound, "You have no order with this id.")
}

// The checks return what is wrong, in a sentence, or "".

func checkItem(item string) string {
	switch {
	case strings.TrimSpace(item) == "":
		return "item is missing: say what to order."
	case utf8.RuneCountInString(item) > maxItem:
		return fmt.Sprintf("item is longer than %d characters.", maxItem)
	case strings.ContainsFunc(item, unicode.IsControl):
		return "item contains control characters."
	}
	return ""
}

func checkQuantity(quantity int) string {
	if quantity < 1 || quantity > maxQuantity {
		return fmt.Sprintf("quantity must be a whole number from 1 to %d.", maxQuantity)
	}
	return ""
}

func checkKey(key string) string {
	notVisible := func(c rune) bool { return c < '!' || c > '~' }
	if len(key) > maxKey || strings.ContainsFunc(key, notVisible) {
		return fmt.Sprintf("Idempotency-Key must be up to %d visible ASCII characters.", maxKey)
	}
	return ""
}

// Package web is the HTTP server around the provider: every route on one page
// (router.go), what happens to each request before and after its handler
// (middleware.go), and the pages a person sees. It decides nothing about
// grants and tokens.
package web

// Package templates holds the pages as templ components over plain view
// structs, their texts in every language, and the one stylesheet. It knows
// nothing of HTTP, grants or storage, and decides nothing.
//
// A page is a function of its view: Login(LoginView), Consent(ConsentView) and
// so on, all in views.go. Texts are in locales/, one file per language, found
// through a Catalogue. IDS.md lists the element ids and field names, which
// tests and other people's scripts may rely on. After editing a .templ file
// run `make generate`.
package templates

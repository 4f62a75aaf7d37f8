// Command conformance judges a running issuer from the outside, one rule of one
// specification at a time: an endpoint is called as a client would call it, and
// the answer is held against the text. For the code flow it sits down at a
// browser without scripts (browser.go) as a person who can sign in (person.go).
// It imports nothing of the provider, so that no mistake is shared with what it
// judges. A file holds the checks of one specification; checks.go lists them
// all; broken/ shows that each can fail, and peer/ what they find at a provider
// that others wrote.
package main

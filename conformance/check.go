package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Check judges one rule of one specification.
type Check struct {
	ID      string // stable name, shared with the broken proxy
	Spec    string // "RFC 8414"
	Section string // "§3.3"
	Name    string // what is true of the issuer when it passes
	Needs   []Need // what must be given or advertised before it can be judged
	Run     func(ctx context.Context, e *Env) error
}

// String is the check as a report line names it.
func (c Check) String() string { return fmt.Sprintf("%s %s  %s", c.Spec, c.Section, c.Name) }

// A Need is something a check cannot do without: a credential of the caller's,
// or an endpoint, which is judged only where the issuer advertises it.
type Need struct {
	what string
	met  func(*Env) bool
}

func client() Need {
	return Need{"--client-id with its secret", func(e *Env) bool { return e.Client.complete() }}
}

func secondClient() Need {
	return Need{"--second-client-id with its secret", func(e *Env) bool { return e.Second.complete() }}
}

func publicClient() Need {
	return Need{"--public-client-id", func(e *Env) bool { return e.PublicClientID != "" }}
}

func privateKeyClient() Need {
	return Need{"--private-key-client-id and --private-key-file", func(e *Env) bool { return e.KeyClient != nil }}
}

func resource() Need {
	return Need{"--resource", func(e *Env) bool { return e.Resource != "" }}
}

func scope() Need {
	return Need{"--scope", func(e *Env) bool { return e.Scope != "" }}
}

// endpoint needs the issuer's metadata to name it.
func endpoint(member string) Need {
	return Need{member + " in the metadata", func(e *Env) bool { return e.endpoint(member) != "" }}
}

// grant needs the issuer's metadata to offer it.
func grant(name string) Need {
	return Need{name + " in grant_types_supported", func(e *Env) bool { return e.supports("grant_types_supported", name) }}
}

// An Outcome is what came of a check.
type Outcome string

// The three outcomes; a check that was skipped says nothing about the issuer.
const (
	Passed  Outcome = "PASS"
	Failed  Outcome = "FAIL"
	Skipped Outcome = "SKIP"
)

// A Result is a check with its outcome; Reason says what was wrong or missing.
type Result struct {
	Check
	Outcome Outcome
	Reason  string
}

// checkTimeout bounds a check, an issuer's wish to be asked later included.
const checkTimeout = 2 * time.Minute

// judge runs one check.
func judge(ctx context.Context, e *Env, c Check) Result {
	for _, n := range c.Needs {
		if !n.met(e) {
			return Result{c, Skipped, "needs " + n.what}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := c.Run(ctx, e)
	var without notOffered
	switch {
	case errors.As(err, &without):
		return Result{c, Skipped, string(without)}
	case err != nil:
		return Result{c, Failed, err.Error()}
	}
	return Result{c, Passed, ""}
}

// notOffered is returned by a check that finds the issuer free not to do what it
// judges, and to say so.
type notOffered string

func (n notOffered) Error() string { return string(n) }

// judgeAll runs the checks in their order, on metadata that has been read, and
// hands each result to report. It ends early only when ctx does.
func judgeAll(ctx context.Context, e *Env, checks []Check, report func(Result)) error {
	for _, c := range checks {
		r := judge(ctx, e, c)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
		report(r)
	}
	return nil
}

// unexpected says what came instead of what the specification wants.
func unexpected(what string, got, want any) error {
	return fmt.Errorf("%s: got %s, want %s", what, show(got), show(want))
}

// errNoMetadata is the answer of checks that read a document which did not come.
var errNoMetadata = errors.New("the document could not be read")

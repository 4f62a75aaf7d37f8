package storage

import (
	"context"
	"time"
)

// Operation is a kind of call that an Observer is told of.
type Operation string

const (
	OpUpdate    Operation = "update"    // Store.Update, its commit included
	OpView      Operation = "view"      // Store.View
	OpRead      Operation = "read"      // a statement on its own
	OpStatement Operation = "statement" // a statement of an update or view
)

// Observer is told by an engine of what it does, for figures and traces. It is
// used by many goroutines at once.
type Observer interface {
	// Begin is called before an operation, with the text of its statement, if it
	// is one; the values are not in there. It returns the context in which the
	// operation goes on, and what End is to be told of its begin.
	Begin(ctx context.Context, op Operation, statement string) (context.Context, time.Time)
	// End is called once the operation has ended, with how.
	End(ctx context.Context, op Operation, began time.Time, err error)
}

// Observed runs an operation in the sight of an observer, which may be nil.
func Observed(ctx context.Context, o Observer, op Operation, run func(context.Context) error) error {
	if o == nil {
		return run(ctx)
	}
	ctx, began := o.Begin(ctx, op, "")
	err := run(ctx)
	o.End(ctx, op, began, err)
	return err
}

// Load is how busy the connections to the database are.
type Load struct {
	Limit  int           // how many there may be
	Open   int           // how many there are
	Busy   int           // how many of them are in use
	Waits  int64         // how often a caller had to wait for one, since the start
	Waited time.Duration // how long, altogether
}

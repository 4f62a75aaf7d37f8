package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlstore"
)

// maxBatch is how many updates share one commit at most.
const maxBatch = 256

// writer owns the one connection that writes. Its goroutine lends the
// connection to each waiting update in turn, every one inside a savepoint of
// the same transaction, until none is waiting; then it commits, and only then
// answers them all. An update that is alone is committed at once.
type writer struct {
	db    *sql.DB
	conn  *conn // nil until needed, and after it failed
	jobs  chan *job
	quit  chan struct{}
	ended chan struct{}

	observer storage.Observer // or nil
	busy     atomic.Int32     // 1 while a transaction is under way
	waits    waits

	mu        sync.Mutex
	listeners map[int]func() // called after entries of the revocation log were committed
	listened  int
}

// job is an update that waits for its turn.
type job struct {
	ctx    context.Context
	turn   chan *conn // lends the connection
	back   chan error // gives it back, with how the work went
	result chan error // how it ended

	appended bool // to the revocation log
}

func newWriter(db *sql.DB, o storage.Observer) *writer {
	w := &writer{db: db, observer: o, jobs: make(chan *job), quit: make(chan struct{}), ended: make(chan struct{}), listeners: make(map[int]func())}
	go w.run()
	return w
}

// update runs fn, in the caller's goroutine, when it is its turn.
func (w *writer) update(ctx context.Context, fn func(ctx context.Context, tx storage.Tx) error) error {
	j := &job{ctx: ctx, turn: make(chan *conn), back: make(chan error, 1), result: make(chan error, 1)}
	if err := w.queue(ctx, j); err != nil {
		return err
	}
	select {
	case c := <-j.turn:
		j.work(sqlstore.Observe(c, w.observer, storage.OpStatement), fn)
		return <-j.result
	case err := <-j.result: // no transaction could be begun
		return err
	case <-ctx.Done():
		return classify(ctx.Err())
	}
}

// queue hands the job to the writer, when that takes one.
func (w *writer) queue(ctx context.Context, j *job) error {
	select {
	case w.jobs <- j:
		return nil
	default:
	}
	defer w.waits.add(time.Now())
	select {
	case w.jobs <- j:
		return nil
	case <-ctx.Done():
		return classify(ctx.Err())
	case <-w.quit:
		return errClosed
	}
}

var errAbandoned = errors.New("update did not return")

// work runs fn and gives the connection back whatever fn does: a panic or
// runtime.Goexit goes on in the caller's goroutine, without its changes.
func (j *job) work(db sqlstore.DB, fn func(ctx context.Context, tx storage.Tx) error) {
	err := errAbandoned
	defer func() { j.back <- err }()
	tx := sqlstore.NewTx(db)
	failed := fn(j.ctx, tx)
	if failed == nil {
		failed = tx.Err()
	}
	j.appended = tx.Appended()
	err = failed
}

func (w *writer) run() {
	defer close(w.ended)
	for {
		select {
		case j := <-w.jobs:
			w.batch(j)
		case <-w.quit:
			if w.conn != nil {
				w.conn.discard()
			}
			return
		}
	}
}

// batch runs a job and those that wait behind it in one transaction.
func (w *writer) batch(j *job) {
	w.busy.Store(1)
	defer w.busy.Store(0)
	if err := w.begin(); err != nil {
		for ; j != nil; j = w.next() { // they would only wait as long, one by one
			j.result <- err
		}
		return
	}
	var done []*job
	var lost error // why the whole transaction is
	for n := 1; j != nil && lost == nil; n++ {
		var err error
		if err, lost = w.lend(j); err != nil {
			j.result <- err
		} else {
			done = append(done, j)
		}
		if j = nil; n < maxBatch && lost == nil {
			j = w.waiting()
		}
	}
	if lost == nil {
		lost = w.exec("COMMIT")
	}
	if lost != nil {
		// Whatever state it is in, a new connection is in none.
		w.conn.discard()
		w.conn = nil
		lost = fmt.Errorf("%w: commit: %w", storage.ErrUnavailable, lost)
	}
	appended := false
	for _, j := range done {
		appended = appended || j.appended
		j.result <- lost
	}
	if appended && lost == nil {
		w.announce()
	}
}

// onAppend has tell called after each commit that added to the revocation log,
// until leave is called. tell must not block.
func (w *writer) onAppend(tell func()) (leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.listened
	w.listened++
	w.listeners[id] = tell
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.listeners, id)
	}
}

func (w *writer) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tell := range w.listeners {
		tell()
	}
}

// next returns a job if one waits already.
func (w *writer) next() *job {
	select {
	case j := <-w.jobs:
		return j
	default:
		return nil
	}
}

// waiting is next for a commit that others may share. It looks twice, and lets
// other goroutines run in between: callers that were just answered often come
// back, and half as many commits are worth more than the microsecond that a
// caller who is alone loses.
func (w *writer) waiting() *job {
	for range 2 {
		if j := w.next(); j != nil {
			return j
		}
		runtime.Gosched()
	}
	return nil
}

// begin starts a transaction, on a new connection if need be.
func (w *writer) begin() (err error) {
	if w.conn == nil {
		if w.conn, err = connect(w.db); err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
	}
	if err = w.exec("BEGIN IMMEDIATE"); err == nil {
		return nil
	}
	if !busy(err) {
		w.conn.discard()
		w.conn = nil
	}
	return fmt.Errorf("begin: %w", err)
}

// lend gives a job its turn. err is how the job went; lost says that the
// transaction can no longer be committed.
func (w *writer) lend(j *job) (err, lost error) {
	if err := w.exec("SAVEPOINT job"); err != nil {
		return err, err
	}
	select {
	case j.turn <- w.conn:
		err = <-j.back
	case <-j.ctx.Done():
		err = classify(j.ctx.Err())
	}
	if err != nil {
		// SQLite itself undoes the whole transaction on some errors (disk
		// full, I/O), and with it every savepoint: then this fails.
		lost = w.exec("ROLLBACK TO job")
	}
	if lost == nil {
		lost = w.exec("RELEASE job")
	}
	if err == nil {
		err = lost
	}
	return err, lost
}

func (w *writer) exec(query string) error {
	_, err := w.conn.Exec(context.Background(), query)
	return err
}

// check opens the connection and finds out whether the file can be written.
func (w *writer) check(ctx context.Context) error {
	return w.update(ctx, func(context.Context, storage.Tx) error { return nil })
}

// close waits for the batch under way.
func (w *writer) close() error {
	close(w.quit)
	<-w.ended
	return w.db.Close()
}

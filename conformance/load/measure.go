package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// settings of a run.
type settings struct {
	concurrency      int
	duration, warmup time.Duration
	requests         int   // warm-up among them
	pids             []int // of the servers
	database         int   // 0: none
}

// A worker keeps one request in flight. Only done and failed are read by others
// while it runs.
type worker struct {
	conn     conn
	op       operation
	latency  histogram
	failures map[string]failed
	done     atomic.Uint64
	failed   atomic.Uint64
}

// failed counts failures of one kind, with the first as an example.
type failed struct {
	count   uint64
	example string
}

// readClosely is how many answers go by between two that are read closely.
const readClosely = 1000

// work repeats the operation until the end, or quota times. What begins before
// from is not counted.
func (w *worker) work(ctx context.Context, from, end time.Time, quota int) {
	defer w.conn.close()
	for n := range quota {
		start := time.Now()
		if !start.Before(end) || ctx.Err() != nil {
			return
		}
		err := w.op(&w.conn, start, n%readClosely == 0)
		if err == nil {
			w.done.Add(1)
			if !start.Before(from) {
				w.latency.record(time.Since(start))
			}
			continue
		}
		w.failed.Add(1)
		if !start.Before(from) {
			w.count(err)
		}
		if w.conn.net == nil {
			// A server that is gone is not asked in a spin.
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func (w *worker) count(err error) {
	kind := "other"
	var f *failure
	if errors.As(err, &f) {
		kind = f.kind
	}
	was := w.failures[kind]
	if was.count == 0 {
		was.example = err.Error()
	}
	was.count++
	w.failures[kind] = was
}

// measure runs the workload. Interrupted, it reports what it has.
func measure(ctx context.Context, o options) (*report, error) {
	newOperation, err := o.workload.prepare(ctx, &o.target, o.settings.concurrency)
	if err != nil {
		return nil, fmt.Errorf("%s: preparing: %w", o.workload.name, err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := o.settings
	start := time.Now()
	from := start.Add(s.warmup)
	end := from.Add(s.duration)
	workers := make([]*worker, s.concurrency)
	var wg sync.WaitGroup
	for i := range workers {
		w := &worker{conn: conn{address: o.target.addressOf(i)}, op: newOperation(i), failures: map[string]failed{}}
		workers[i] = w
		wg.Go(func() { w.work(ctx, from, end, s.requests/s.concurrency) })
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	if o.progress != nil {
		go tellProgress(o.progress, workers, start, from, finished)
	}

	select {
	case <-time.After(time.Until(from)):
	case <-finished:
	}
	before, err := readUsages(s)
	if err != nil {
		return nil, err
	}
	<-finished
	seconds := time.Since(from).Seconds()
	after, err := readUsages(s)
	if err != nil {
		return nil, err
	}

	total := new(histogram)
	failures := map[string]failed{}
	for _, w := range workers {
		total.add(&w.latency)
		for kind, f := range w.failures {
			sum := failures[kind]
			if sum.count == 0 {
				sum.example = f.example
			}
			sum.count += f.count
			failures[kind] = sum
		}
	}
	if total.n == 0 && len(failures) == 0 {
		return nil, errors.New("ended before the warm-up did: nothing was measured")
	}
	return newReport(o, start, seconds, total, failures, before, after), nil
}

// usages are those of the servers together and of the database, if their
// processes are known, and of this process.
type usages struct {
	server   *processUsage
	database *processUsage
	own      *processUsage
}

func readUsages(s settings) (usages, error) {
	var u usages
	for _, pid := range s.pids {
		p, err := readProcess(pid)
		if err != nil {
			return usages{}, err
		}
		if u.server != nil {
			p.cpu, p.peakRSS = p.cpu+u.server.cpu, max(p.peakRSS, u.server.peakRSS)
		}
		u.server = &p
	}
	if s.database != 0 {
		p, err := readFamily(s.database)
		if err != nil {
			return usages{}, err
		}
		u.database = &p
	}
	// Of interest, but nothing to fail for where there is no /proc.
	if p, err := readProcess(os.Getpid()); err == nil {
		u.own = &p
	}
	return u, nil
}

// tellProgress writes a line each second until the workers have finished.
func tellProgress(w io.Writer, workers []*worker, start, from time.Time, finished <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last uint64
	for {
		select {
		case <-finished:
			return
		case now := <-tick.C:
			var done, failed uint64
			for _, worker := range workers {
				done += worker.done.Load()
				failed += worker.failed.Load()
			}
			phase := ""
			if now.Before(from) {
				phase = "  (warm-up)"
			}
			fmt.Fprintf(w, "%4.0f s  %8s/s  %s failed%s\n", now.Sub(start).Seconds(), grouped(done-last), grouped(failed), phase)
			last = done
		}
	}
}

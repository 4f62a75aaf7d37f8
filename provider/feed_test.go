package provider

import (
	"fmt"
	"sync"
	"testing"
)

// Of any number of connections at once no more get in than there are places,
// half of them from one network, and nothing is remembered of who has left.
func TestFeedPlaces(t *testing.T) {
	f := newFeedPlaces(7)
	var group sync.WaitGroup
	var mu sync.Mutex
	var leave []func()
	fill := func(address func(i int) string) {
		for i := range 64 {
			group.Go(func() {
				if l, err := f.take(address(i)); err == nil {
					mu.Lock()
					defer mu.Unlock()
					leave = append(leave, l)
				}
			})
		}
		group.Wait()
	}
	fill(func(i int) string { return fmt.Sprintf("2001:db8::%x", i) })
	if len(leave) != 4 || f.count() != 4 {
		t.Errorf("one network has %d places, %d are taken", len(leave), f.count())
	}
	fill(func(i int) string { return fmt.Sprintf("192.0.2.%d", i) })
	if len(leave) != 7 || f.count() != 7 || len(f.byNetwork) != 4 {
		t.Errorf("%d places, %d are taken by %d networks", len(leave), f.count(), len(f.byNetwork))
	}
	for _, l := range leave {
		group.Go(l)
	}
	group.Wait()
	if f.count() != 0 || len(f.byNetwork) != 0 {
		t.Errorf("%d places are taken, %d networks remembered", f.count(), len(f.byNetwork))
	}
}

package app

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// How much is kept; it is all in memory.
const (
	maxText   = 1000   // characters of a note
	maxNotes  = 100    // of a person
	maxPeople = 10_000 // who have notes
)

type note struct {
	ID        int       `json:"id"`
	Text      string    `json:"text"`
	CreatedAt time.Time `json:"created_at"`
}

// notebooks are everybody's notes, by subject.
type notebooks struct {
	now func() time.Time

	mu   sync.Mutex
	last int // the number of the newest note
	of   map[string][]note
}

func newNotebooks(now func() time.Time) *notebooks {
	if now == nil {
		now = time.Now
	}
	return &notebooks{now: now, of: make(map[string][]note)}
}

func (n *notebooks) list(subject string) []note {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]note{}, n.of[subject]...)
}

func (n *notebooks) add(subject, text string) (note, error) {
	if text == "" || !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxText {
		return note{}, fmt.Errorf("a note has 1 to %d characters", maxText)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch mine, known := n.of[subject]; {
	case len(mine) >= maxNotes:
		return note{}, fmt.Errorf("there are %d notes already; delete one first", maxNotes)
	case !known && len(n.of) >= maxPeople:
		return note{}, errors.New("too many people have notes here")
	}
	n.last++
	made := note{n.last, text, n.now().UTC()}
	n.of[subject] = append(n.of[subject], made)
	return made, nil
}

func (n *notebooks) delete(subject string, id int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(n.of[subject]), func(one note) bool { return one.ID == id })
	switch {
	case len(left) == len(n.of[subject]):
		return fmt.Errorf("there is no note %d", id)
	case len(left) == 0:
		delete(n.of, subject)
	default:
		n.of[subject] = left
	}
	return nil
}

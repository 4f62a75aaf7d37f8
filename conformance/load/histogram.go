package main

import (
	"math"
	"math/bits"
	"time"
)

// A histogram counts durations in constant memory, 128 steps to each doubling:
// what it tells is within 0.4 % of the truth.
type histogram struct {
	counts [(maxExponent + 2) << stepBits]uint64
	n      uint64
	max    time.Duration
}

const (
	stepBits    = 7
	maxExponent = 30                              // the last doubling ends beyond two minutes
	maxRecorded = 1<<(maxExponent+stepBits+1) - 1 // nanoseconds; longer counts as this
)

func (h *histogram) record(d time.Duration) {
	h.n++
	h.max = max(h.max, d)
	h.counts[step(uint64(min(max(d, 0), maxRecorded)))]++
}

// step is the index of a value: below 256 the value itself, then its highest
// eight bits, after the steps of the smaller exponents.
func step(v uint64) int {
	e := max(bits.Len64(v)-(stepBits+1), 0)
	return e<<stepBits + int(v>>e)
}

// middle is the value in the middle of a step.
func middle(i int) time.Duration {
	if i < 2<<stepBits {
		return time.Duration(i)
	}
	e := i>>stepBits - 1
	return time.Duration((i-e<<stepBits)<<e + 1<<e/2)
}

func (h *histogram) add(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// percentile is the value that p of 100 do not exceed; 0 of an empty histogram.
func (h *histogram) percentile(p float64) time.Duration {
	rank := uint64(math.Ceil(float64(h.n) * p / 100))
	if rank >= h.n {
		return h.max
	}
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank && n > 0 {
			return min(middle(i), h.max)
		}
	}
	return h.max
}

package provider

import "sync"

// cache is a bounded map for what can be read again. It keeps two
// generations: when the newer one is full, the older one is dropped, and what
// is used is carried over. Strangers can fill it, never grow it.
type cache[K comparable, V any] struct {
	mu           sync.RWMutex
	capacity     int // of one generation
	newer, older map[K]V
}

// newCache returns a cache that holds at most capacity values.
func newCache[K comparable, V any](capacity int) *cache[K, V] {
	return &cache[K, V]{capacity: max(1, capacity/2), newer: make(map[K]V)}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.RLock()
	v, ok := c.newer[key]
	inOlder := false
	if !ok {
		v, inOlder = c.older[key]
	}
	c.mu.RUnlock()
	if inOlder {
		c.put(key, v)
	}
	return v, ok || inOlder
}

func (c *cache[K, V]) put(key K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.newer) >= c.capacity {
		c.older, c.newer = c.newer, make(map[K]V)
	}
	c.newer[key] = v
}

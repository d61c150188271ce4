// Package cache is the simulated done-cache: a Server stands for Redis, which may
// forget, and a Client is one process's cache on it, which does what package
// dedup does: whatever goes wrong is a miss, and a server that fails is not asked
// again until a probe finds it in order.
package cache

import (
	"strconv"
	"time"

	"gpuqd/test/sim/world"
)

// Part is the name of Redis among the parts of a world.
const Part = "redis"

// ttl is how long a job is remembered; the default of package dedup.
const ttl = 24 * time.Hour

// Server is the Redis of one simulated site.
type Server struct {
	world *world.World

	// What follows is guarded by the world's instant.
	entries map[string]entry
	log     []written // every write since the last flush, oldest first
}

// entry is a value and when it is over; zero is never.
type entry struct {
	value string
	until time.Duration
}

// written is a write that a fail over may undo.
type written struct {
	at     time.Duration
	key    string
	before entry
	had    bool // the key was there before
}

// NewServer returns a server that remembers nothing.
func NewServer(w *world.World) *Server { return &Server{world: w, entries: map[string]entry{}} }

// Flush has the server forget everything. Call it outside of Do.
func (s *Server) Flush() {
	s.world.Do(func() {
		clear(s.entries)
		s.log = nil
	})
}

// FailOver puts a replica in the server's place that has not seen the writes of
// the time lost. Call it outside of Do.
func (s *Server) FailOver(lost time.Duration) {
	s.world.Do(func() {
		since := s.world.Now() - lost
		for n := len(s.log); n > 0 && s.log[n-1].at > since; n = len(s.log) {
			last := s.log[n-1]
			if last.had {
				s.entries[last.key] = last.before
			} else {
				delete(s.entries, last.key)
			}
			s.log = s.log[:n-1]
		}
	})
}

// get returns a value, as GET does. Within Do.
func (s *Server) get(key string) (string, bool) {
	e, ok := s.entries[key]
	if !ok || e.until != 0 && s.world.Now() >= e.until {
		return "", false
	}
	return e.value, true
}

// set writes a value, as SET does; a life of 0 never ends. Within Do.
func (s *Server) set(key, value string, life time.Duration) {
	before, had := s.entries[key]
	s.log = append(s.log, written{s.world.Now(), key, before, had})
	e := entry{value: value}
	if life > 0 {
		e.until = s.world.Now() + life
	}
	s.entries[key] = e
}

// increment adds one to a number, as INCR does. Within Do.
func (s *Server) increment(key string) int64 {
	text, _ := s.get(key)
	n, _ := strconv.ParseInt(text, 10, 64) // absent counts as 0; no other values are written there
	s.set(key, strconv.FormatInt(n+1, 10), 0)
	return n + 1
}

package broker

import (
	"errors"
	"time"
)

// results name what became of an operation, for Config.Observe. Order counts:
// the later ones are often the cause of the earlier.
var results = []struct {
	err  error
	name string
}{
	{ErrUnroutable, "returned"},
	{ErrTakeTimeout, "timeout"},
	{ErrNoReply, "no_reply"},
	{ErrNoHost, "no_host"},
	{ErrNoQueue, "no_queue"},
	{ErrBlocked, "blocked"},
	{ErrUnknown, "unknown"},
	{ErrDenied, "denied"},
	{ErrUnreachable, "unreachable"},
}

// resultOf names what became of an operation: ok, one of results, or failed.
func resultOf(err error) string {
	if err == nil {
		return "ok"
	}
	for _, r := range results {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return "failed"
}

func (c *Client) observe(operation, result string, began time.Time) {
	if c.cfg.Observe != nil {
		c.cfg.Observe(operation, result, time.Since(began))
	}
}

// Connection is how one of the client's connections stands.
type Connection struct {
	Name    string // publish, take, look or reply
	Up      bool
	Blocked bool   // the broker accepts no messages on it
	Lost    uint64 // how often it was lost
}

// Connections returns how each connection stands.
func (c *Client) Connections() []Connection {
	list := make([]Connection, 0, len(c.links()))
	for _, l := range c.links() {
		list = append(list, l.stands())
	}
	return list
}

func (l *link) stands() Connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Connection{Name: l.name, Lost: l.gen - 1}
	if l.cur != nil && !l.cur.isGone() {
		c.Up, c.Blocked = true, l.cur.blockedBy() != ""
	}
	return c
}

package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says which broker to use, as whom, and how long to wait for it. The
// durations have defaults; the rest is the caller's.
type Config struct {
	// URLs of the broker's nodes: amqp://host:port/vhost or amqps://…. A node is
	// chosen at random at each connect; userinfo is used only where User is empty.
	URLs     []string
	User     string
	Password string
	Host     string      // this host's name, for HostKey and for the broker's list of connections
	TLS      *tls.Config // for amqps; nil verifies against the system's roots

	DialTimeout    time.Duration // to connect to one node, 5 s
	TakeTimeout    time.Duration // for the answer to a get, 5 s
	ConfirmTimeout time.Duration // for a confirm, and for a write to the network, 10 s
	DeclareTimeout time.Duration // for a declare or a depth, 15 s
	Heartbeat      time.Duration // a silent node is given up after three, 5 s
	BackoffMax     time.Duration // between attempts to connect, 5 s; jittered, from 50 ms

	Logger *slog.Logger // nil discards
	// Observe is told of every operation on the broker: its name (publish, get,
	// depth, request), its result as resultOf names it, and the time it took. It
	// must not block. Nil for none.
	Observe func(operation, result string, took time.Duration)
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.DialTimeout, 5 * time.Second},
		{&c.TakeTimeout, 5 * time.Second},
		{&c.ConfirmTimeout, 10 * time.Second},
		{&c.DeclareTimeout, 15 * time.Second},
		{&c.Heartbeat, 5 * time.Second},
		{&c.BackoffMax, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Client is a daemon's access to the broker. All methods may be called at the
// same time, before Run too: they wait for a connection within their context
// and timeouts, then return ErrUnreachable.
type Client struct {
	cfg    Config
	dialer *dialer
	err    error // of the configuration; Run returns it

	publish, take, look, reply *link

	taking chan struct{} // held by the one get under way; capacity 1
	intake gate          // closed while PauseSubmit holds
	bells  chan string
	rings  *ringer

	ready     chan struct{} // closed once all links have been up
	readyOnce sync.Once
}

// bellBuffer is how many bells wait for the agent; each names one queue, and
// the agent's slow tick finds what was dropped.
const bellBuffer = 256

// New returns a client that does nothing until Run.
func New(cfg Config) *Client {
	cfg = cfg.withDefaults()
	c := &Client{
		cfg:    cfg,
		taking: make(chan struct{}, 1),
		bells:  make(chan string, bellBuffer),
		rings:  newRinger(),
		ready:  make(chan struct{}),
	}
	c.dialer, c.err = newDialer(cfg)
	c.look = newLink("look", c.dialer, cfg, c.setupLook)
	c.publish = newLink("publish", c.dialer, cfg, c.setupPublish)
	c.take = newLink("take", c.dialer, cfg, c.setupTake)
	c.reply = newLink("reply", c.dialer, cfg, c.setupReply)
	return c
}

// randomName returns 12 hexadecimal digits.
func randomName() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}

// errStopped ends what waits for a connection when Run returns.
var errStopped = errors.New("the broker client is stopping")

// Run keeps the connections up until ctx ends, and waits for all its
// goroutines. It returns an error only for a configuration that can never work.
func (c *Client) Run(ctx context.Context) error {
	if c.err != nil {
		return c.err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { c.look.run(ctx); return nil })
	for _, l := range []*link{c.publish, c.take, c.reply} {
		group.Go(func() error {
			// The topology is declared on the look connection; before it stands once,
			// a publish would meet missing exchanges.
			if _, err := c.look.current(ctx); err == nil {
				l.run(ctx)
			}
			return nil
		})
	}
	group.Go(func() error { return c.watchReady(ctx) })
	group.Go(func() error { c.rings.run(ctx, c); return nil })
	group.Go(func() error { return c.consumeBells(ctx) })
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (c *Client) links() []*link { return []*link{c.look, c.publish, c.take, c.reply} }

// watchReady closes ready once each link has been up.
func (c *Client) watchReady(ctx context.Context) error {
	for _, l := range c.links() {
		if _, err := l.current(ctx); err != nil {
			return nil // ctx ended
		}
	}
	c.readyOnce.Do(func() { close(c.ready) })
	return nil
}

// Ready is closed once all connections have been up and the topology stood.
// Healthy says how it is now.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Healthy reports whether every connection is up and the broker accepts
// messages; if not, why says what is missing, for a status line.
func (c *Client) Healthy() (ok bool, why string) {
	if c.err != nil {
		return false, c.err.Error()
	}
	var reasons []string
	names := map[string][]string{} // of connections, by reason
	for _, l := range c.links() {
		if reason := l.trouble(); reason != "" {
			if names[reason] == nil {
				reasons = append(reasons, reason)
			}
			names[reason] = append(names[reason], l.name)
		}
	}
	for i, reason := range reasons {
		what := "connection"
		if len(names[reason]) > 1 {
			what += "s"
		}
		reasons[i] = fmt.Sprintf("%s %s: %s", strings.Join(names[reason], ", "), what, reason)
	}
	return len(reasons) == 0, strings.Join(reasons, "; ")
}

// Generation returns the generation of the take connection, from 1. Tags of
// earlier ones are stale.
func (c *Client) Generation() uint64 { return c.take.generation() }

// GenerationChanged returns a channel that is closed when the generation that
// is current at this call ends. Get it before reading Generation.
func (c *Client) GenerationChanged() <-chan struct{} { return c.take.generationEnd() }

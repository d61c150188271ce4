package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// endpoint is one node of the broker.
type endpoint struct {
	url  string // without an account, and amqp even where it is amqps: dialOne does the TLS
	addr string // for messages
	auth *amqp.PlainAuth
	tls  *tls.Config // nil for amqp
}

// dialer opens sessions to whichever node answers.
type dialer struct {
	endpoints []endpoint
	host      string
	log       *slog.Logger
	timeout   time.Duration // for one node
	write     time.Duration // for one write
	heartbeat time.Duration
}

func newDialer(cfg Config) (*dialer, error) {
	d := &dialer{
		host: cfg.Host, log: cfg.Logger,
		timeout: cfg.DialTimeout, write: cfg.ConfirmTimeout, heartbeat: cfg.Heartbeat,
	}
	if len(cfg.URLs) == 0 {
		return d, errors.New("no broker URL is configured: want at least one such as amqp://host:5672/")
	}
	for i, text := range cfg.URLs {
		uri, err := amqp.ParseURI(text)
		if err != nil {
			// The cause quotes the URL, which may hold a password.
			return d, fmt.Errorf("broker URL number %d is not valid: want one such as amqp://host:5672/ or amqps://host:5671/", i+1)
		}
		auth := &amqp.PlainAuth{Username: uri.Username, Password: uri.Password}
		if cfg.User != "" {
			auth = &amqp.PlainAuth{Username: cfg.User, Password: cfg.Password}
		}
		// These are the library's defaults, and left out of the URL: the account
		// goes by auth, and no error text can hold a password.
		uri.Username, uri.Password = "guest", "guest"
		settings := tlsOf(cfg.TLS, uri)
		uri.Scheme = "amqp"
		d.endpoints = append(d.endpoints, endpoint{
			url:  uri.String(),
			addr: net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)),
			auth: auth,
			tls:  settings,
		})
	}
	return d, nil
}

// tlsOf returns the settings for one node, whose name its certificate has to
// hold unless base names another; nil for amqp.
func tlsOf(base *tls.Config, uri amqp.URI) *tls.Config {
	if uri.Scheme != "amqps" {
		return nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		settings = base.Clone()
	}
	if settings.ServerName == "" {
		settings.ServerName = uri.Host
	}
	return settings
}

// dial tries every node once, in random order, and returns the first session.
func (d *dialer) dial(ctx context.Context, name string) (*session, error) {
	var errs []error
	for _, i := range rand.Perm(len(d.endpoints)) {
		s, err := d.dialOne(ctx, d.endpoints[i], name)
		if err == nil {
			return s, nil
		}
		if err := ended(ctx); err != nil {
			return nil, err
		}
		if errors.Is(err, ErrDenied) {
			return nil, err // all nodes share the accounts
		}
		errs = append(errs, fmt.Errorf("%s: %w", d.endpoints[i].addr, err))
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) dialOne(ctx context.Context, e endpoint, name string) (*session, error) {
	var raw net.Conn
	var guard *headerGuard
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("gpuqd " + d.host + " " + name)
	stop := func() bool { return false }
	conn, err := amqp.DialConfig(e.url, amqp.Config{
		SASL:       []amqp.Authentication{e.auth},
		Heartbeat:  d.heartbeat,
		Locale:     "en_US",
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			tcp, err := (&net.Dialer{Timeout: d.timeout}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			raw = &writeDeadlineConn{Conn: tcp, timeout: d.write}
			stop = context.AfterFunc(ctx, func() { _ = tcp.Close() })
			// For the handshakes; the library clears it when they are done.
			if err := tcp.SetDeadline(time.Now().Add(d.timeout)); err != nil {
				return nil, err
			}
			plain := raw
			if e.tls != nil {
				secure := tls.Client(raw, e.tls)
				if err := secure.HandshakeContext(ctx); err != nil {
					return nil, err
				}
				plain = secure
			}
			guard = newHeaderGuard(plain, d.log)
			return guard, nil
		},
	})
	stop()
	if err != nil {
		if raw != nil {
			_ = raw.Close()
		}
		if errors.Is(err, amqp.ErrCredentials) || hasCode(err, amqp.AccessRefused) {
			return nil, fmt.Errorf("%w: check the account %q and its password", ErrDenied, e.auth.Username)
		}
		return nil, err
	}
	guard.frameMax.Store(int64(conn.Config.FrameSize))
	return newSession(conn, raw, e.auth.Username), nil
}

// writeDeadlineConn bounds every write: a broker under an alarm stops reading,
// and a write into its full buffers would never return.
type writeDeadlineConn struct {
	net.Conn
	timeout time.Duration
}

// Write implements net.Conn.
func (c *writeDeadlineConn) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

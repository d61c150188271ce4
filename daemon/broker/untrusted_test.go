package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// tlsFront lets amqps reach a node of the cluster, and returns its port and the
// settings that trust it.
func tlsFront(t *testing.T) (port int, trust *tls.Config) {
	t.Helper()
	server := httptest.NewTLSServer(nil) // for its certificate
	certificate, roots := server.TLS.Certificates, x509.NewCertPool()
	roots.AddCert(server.Certificate())
	server.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			front, err := listener.Accept()
			if err != nil {
				return // closed
			}
			back, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", cluster.Nodes[0].Port))
			if err != nil {
				_ = front.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{front, back}, {back, front}} {
				wg.Go(func() {
					_, _ = io.Copy(way[0], way[1]) // ends when either side does
					_ = way[0].Close()
					_ = way[1].Close()
				})
			}
		}
	})
	return listener.Addr().(*net.TCPAddr).Port, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// The broker passes headers over which the client library shuts the connection
// down. No user may end a daemon's connection so, by amqp or by amqps, at the
// first delivery or at one to which the queue has added its own headers.
func TestHeadersOfAUser(t *testing.T) {
	deep := amqp.Table{"k": "v"}
	for range 40 {
		deep = amqp.Table{"k": deep}
	}
	// 14 bytes before the table, 11 of it before the text; the frame is the
	// largest there is, and x-delivery-count makes it larger.
	const textMax = 131_072 - 8 - 14 - 11
	cases := []struct {
		name    string
		headers amqp.Table
		kept    bool
	}{
		{"Ordinary", amqp.Table{"a": "b", "c": amqp.Table{"d": []any{int32(1), nil}}}, true},
		{"TooDeep", deep, false},
		{"TooManyElements", amqp.Table{"k": make([]any, 9000)}, false},
		{"FrameFull", amqp.Table{"k": strings.Repeat("x", textMax)}, false},
	}
	plain, secure := configOf("host1"), configOf("host2")
	port, trust := tlsFront(t)
	secure.URLs, secure.TLS = []string{fmt.Sprintf("amqps://127.0.0.1:%d/", port)}, trust
	for name, cfg := range map[string]Config{"amqp": plain, "amqps": secure} {
		t.Run(name, func(t *testing.T) {
			c := runClient(t, cfg)
			look := c.look.generation()
			got := make(chan *Delivery, 1)
			inBackground(t, func(ctx context.Context) error {
				return c.ConsumeSubmit(ctx, 1, func(_ context.Context, d *Delivery) Verdict {
					if !d.Redelivered {
						return Requeue(0)
					}
					got <- d
					return Done
				})
			})
			user := channelOf(t, "alice")
			if err := user.Confirm(false); err != nil {
				t.Fatal(err)
			}
			for _, k := range cases {
				message := amqp.Publishing{Headers: k.headers, Body: []byte(k.name)}
				if k.name != "FrameFull" { // it has no room for more
					message.ContentType, message.MessageId, message.UserId = "application/json", "id-1", "alice"
				}
				confirm, err := user.PublishWithDeferredConfirm(ExchangeSubmit, "", true, false, message)
				if err != nil {
					t.Fatal(err)
				}
				if ok, err := confirm.WaitContext(bounded(t)); !ok || err != nil {
					t.Fatalf("%s: the broker did not take it (%v): this test shows nothing", k.name, err)
				}
				select {
				case d := <-got:
					if string(d.Body) != k.name || d.UserID != message.UserId || d.MessageID != message.MessageId {
						t.Errorf("%s: got %+v", k.name, d)
					}
					if k.kept != (d.Headers["a"] == "b") || !k.kept && len(d.Headers) > 0 {
						t.Errorf("%s: it came with %d headers", k.name, len(d.Headers))
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("%s: not delivered", k.name)
				}
			}
			if n := c.look.generation(); n != look {
				t.Errorf("the look connection was lost %d times", n-look)
			}
			if ok, why := c.Healthy(); !ok {
				t.Error(why)
			}
			wantDepth(t, c, QueueSubmit, 0)
		})
	}
	t.Run("CertificateOfAnotherIsRefused", func(t *testing.T) {
		cfg := secure
		cfg.TLS = nil // trusts the system's roots
		if _, err := DialRequester(bounded(t), cfg); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
}

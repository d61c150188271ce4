package services

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// RabbitCluster is a RabbitMQ cluster on one machine: one epmd and n nodes, all
// on private ports of 127.0.0.1 and with all their files below Dir. It shares
// nothing with a RabbitMQ that the system runs. Accounts are made by AddUser;
// there is no guest.
type RabbitCluster struct {
	Dir   string
	Nodes []*RabbitNode
	// Epmd maps node names to ports. It has to run before any node starts.
	Epmd *Process

	epmdPort        int
	cookie          string
	consumerTimeout time.Duration // 0 is the constant of that name
	mu              sync.Mutex
	definitions     definitions // what the nodes import when they start; guarded by mu
}

// RabbitNode is one node. Its Process can be killed, frozen and started on its
// own: alone while a majority of the cluster runs, else together with the rest.
type RabbitNode struct {
	Name    string // rabbit1@localhost
	Port    int    // AMQP
	Process *Process
	// MetricsPort has /metrics; 0 where SetMetricsPorts was not called.
	MetricsPort int

	dir      string
	distPort int
	cluster  *RabbitCluster
}

// rabbitBin is where Debian keeps the real programs. Those in /usr/sbin switch
// to the user rabbitmq and to the files of the system's own node.
const rabbitBin = "/usr/lib/rabbitmq/bin"

// ErrNoRabbit says that RabbitMQ is not installed on this machine.
var ErrNoRabbit = errors.New("rabbitmq-server is not installed: apt-get install rabbitmq-server (and stop the service that it starts)")

// NewRabbitCluster prepares a cluster of n nodes below dir, which may hold the
// state of an earlier one of as many nodes. The ports, if given, are 2n+1: n
// for AMQP, n between the nodes, one for epmd; free ones are picked else.
func NewRabbitCluster(dir string, n int, ports ...int) (*RabbitCluster, error) {
	if _, err := os.Stat(filepath.Join(rabbitBin, "rabbitmq-server")); err != nil {
		return nil, ErrNoRabbit
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("prepare rabbitmq: %w", err)
	}
	if len(ports) == 0 {
		if ports, err = FreePorts(2*n + 1); err != nil {
			return nil, err
		}
	}
	if n < 1 || len(ports) != 2*n+1 {
		return nil, fmt.Errorf("prepare rabbitmq: %d nodes need %d ports, not %d", n, 2*n+1, len(ports))
	}
	c := &RabbitCluster{Dir: dir, epmdPort: ports[2*n]}
	for i := range n {
		name := fmt.Sprintf("rabbit%d", i+1)
		c.Nodes = append(c.Nodes, &RabbitNode{
			Name: name + "@localhost", Port: ports[i], distPort: ports[n+i], dir: filepath.Join(dir, name),
		})
	}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("prepare rabbitmq: %w", err)
	}
	return c, nil
}

// prepare writes every file and fills in the Processes.
func (c *RabbitCluster) prepare() error {
	if err := c.prepareCookie(); err != nil {
		return err
	}
	if err := c.loadDefinitions(); err != nil {
		return err
	}
	if !slices.ContainsFunc(c.definitions.Users, func(u rabbitUser) bool { return u.Name == probeUser }) {
		c.setUser(probeUser, c.probePassword(), "^$", "^$", "^$")
		if err := c.saveDefinitions(); err != nil {
			return err
		}
	}
	port := strconv.Itoa(c.epmdPort)
	c.Epmd = &Process{
		Name: "epmd", Path: "epmd", Args: []string{"-port", port, "-address", "127.0.0.1"},
		Env: c.env(), LogPath: filepath.Join(c.Dir, "epmd.log"),
		Ready: func(ctx context.Context) error { return canConnect(ctx, c.epmdPort) },
	}
	for _, node := range c.Nodes {
		node.cluster = c
		if err := node.writeConfig(c); err != nil {
			return err
		}
		node.Process = &Process{
			Name: node.Name, Path: filepath.Join(rabbitBin, "rabbitmq-server"),
			Env: append(c.env(), node.env(c)...), Dir: node.dir,
			LogPath: filepath.Join(node.dir, "rabbit.log"), Ready: node.acceptsAMQP,
		}
	}
	return nil
}

// prepareCookie makes the secret that the nodes and rabbitmqctl share, or takes
// the one that is there.
func (c *RabbitCluster) prepareCookie() error {
	home := filepath.Join(c.Dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	path := filepath.Join(home, ".erlang.cookie")
	if old, err := os.ReadFile(path); err == nil && len(old) > 0 {
		c.cookie = string(old)
		return nil
	}
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails
	c.cookie = hex.EncodeToString(secret)
	return os.WriteFile(path, []byte(c.cookie), 0o400)
}

// Processes returns all processes in the order in which to start them; the
// nodes may start at the same time, and on a fresh directory should.
func (c *RabbitCluster) Processes() []*Process {
	all := []*Process{c.Epmd}
	for _, node := range c.Nodes {
		all = append(all, node.Process)
	}
	return all
}

// Start starts what is not running and waits until every node accepts AMQP
// connections.
func (c *RabbitCluster) Start(ctx context.Context) error {
	if !c.Epmd.Running() {
		if err := c.Epmd.Start(ctx); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range c.Nodes {
		if !node.Process.Running() {
			group.Go(func() error { return node.Process.Start(ctx) })
		}
	}
	return group.Wait()
}

// stopGrace is what a node gets to stop in order.
const stopGrace = 20 * time.Second

// Stop stops all nodes in order, then epmd. What is in durable queues stays.
func (c *RabbitCluster) Stop() {
	c.each(func(p *Process) { p.Stop(stopGrace) })
}

// Kill ends everything at once, as a power cut would.
func (c *RabbitCluster) Kill() {
	c.each(func(p *Process) { p.Kill() })
}

func (c *RabbitCluster) each(end func(*Process)) {
	var all sync.WaitGroup
	for _, node := range c.Nodes {
		all.Go(func() { end(node.Process) })
	}
	all.Wait()
	c.Epmd.Kill() // it keeps no state, and SIGTERM would do the same
}

// URL returns the AMQP URL of the node for an account.
func (n *RabbitNode) URL(user, password string) string {
	u := url.URL{
		Scheme: "amqp", User: url.UserPassword(user, password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(n.Port)), Path: "/",
	}
	return u.String()
}

// probeUser is an account that may do nothing but connect. Its password comes
// from the cookie, so that whoever takes the directory over knows it too.
const probeUser = "gpuq-test-probe"

func (c *RabbitCluster) probePassword() string {
	sum := sha256.Sum256([]byte("probe " + c.cookie))
	return hex.EncodeToString(sum[:])
}

// acceptsAMQP opens a connection to the vhost. On a busy machine that can take
// much longer than the broker's first answer on its port.
func (n *RabbitNode) acceptsAMQP(ctx context.Context) error {
	conn, err := amqp.DialConfig(n.URL(probeUser, n.cluster.probePassword()), amqp.Config{
		Dial: func(network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return conn, conn.SetDeadline(time.Now().Add(5 * time.Second)) // for all of it
		},
	})
	if errors.Is(err, amqp.ErrCredentials) {
		return nil // it was started before there was this account, and knows the others
	}
	var refusal *amqp.Error
	if errors.As(err, &refusal) && strings.HasSuffix(refusal.Reason, "is down") {
		return errors.Join(err, n.startVhost(ctx))
	}
	if err != nil {
		return err
	}
	return conn.CloseDeadline(time.Now().Add(5 * time.Second))
}

// startVhost starts the vhost on a node that has left it down, and will not start
// it by itself: one that joins while another makes the vhost can miss that (seen
// on 3.10.8 on a busy machine; later versions reconcile).
func (n *RabbitNode) startVhost(ctx context.Context) error {
	out, err := n.cluster.Eval(ctx, n, `rabbit_vhost_sup_sup:start_vhost(<<"/">>).`)
	if err == nil && !strings.HasPrefix(out, "{ok,") {
		err = fmt.Errorf("start the vhost of %s: %s", n.Name, out)
	}
	return err
}

func canConnect(ctx context.Context, port int) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

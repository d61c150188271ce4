package broker

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// cluster is the one real cluster of this package's tests. Each test uses
// queues of its own and leaves all nodes running.
var cluster *services.RabbitCluster

func TestMain(m *testing.M) {
	os.Exit(runMain(m))
}

func runMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "broker")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if cluster, err = services.NewRabbitCluster(dir, 3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cluster.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for name, p := range map[string]Permissions{
		"host1": HostPermissions(), "host2": HostPermissions(),
		"alice": UserPermissions(), "bob": UserPermissions(),
		"admin": {Configure: ".*", Write: ".*", Read: ".*"},
	} {
		if err := cluster.AddUser(ctx, name, "secret of "+name, p.Configure, p.Write, p.Read); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	began := time.Now()
	if err := cluster.Start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("three nodes were ready after %s\n", time.Since(began).Round(100*time.Millisecond))
	code := m.Run()
	cluster.Kill() // its goroutines are no leak of ours
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// configOf returns the settings of an account, with short timeouts.
func configOf(user string) Config {
	cfg := Config{
		User: user, Password: "secret of " + user, Host: user,
		TakeTimeout: 2 * time.Second, ConfirmTimeout: 10 * time.Second, DialTimeout: 2 * time.Second,
		Heartbeat: 4 * time.Second, BackoffMax: time.Second,
	}
	for _, node := range cluster.Nodes {
		cfg.URLs = append(cfg.URLs, fmt.Sprintf("amqp://127.0.0.1:%d/", node.Port))
	}
	return cfg
}

// runClient runs a client until the test ends, and waits until it is ready.
func runClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	if testing.Verbose() {
		cfg.Logger = testLogger(t)
	}
	c := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-c.Ready():
	case <-time.After(time.Minute):
		_, why := c.Healthy()
		t.Fatalf("not ready after a minute: %s", why)
	}
	return c
}

// queueOf returns a declared job queue of the test's own.
func queueOf(t *testing.T, c *Client, name string) string {
	t.Helper()
	queue := "gpuq.job.test.normal.g1." + name
	if err := c.DeclareShape(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	return queue
}

// takeOne takes from a queue until there is a message, whatever fails meanwhile.
func takeOne(t *testing.T, c *Client, queue string) *Delivery {
	t.Helper()
	var got *Delivery
	wait.For(t, time.Minute, func() error {
		d, err := c.Take(t.Context(), queue)
		if err != nil {
			return err
		}
		if d == nil {
			return fmt.Errorf("%s is empty", queue)
		}
		got = d
		return nil
	})
	return got
}

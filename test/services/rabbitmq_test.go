package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"gpuqd/test/wait"
)

// clusterOf starts a cluster in a directory of its own and ends it with the test.
func clusterOf(t *testing.T, n int) *RabbitCluster {
	t.Helper()
	c, err := NewRabbitCluster(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		if left := processesOf(t, c.Dir); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
	if err := c.AddUser(t.Context(), "tester", "secret", ".*", ".*", ".*"); err != nil {
		t.Fatal(err)
	}
	start(t, c.Start)
	return c
}

func start(t *testing.T, start func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	began := time.Now()
	if err := start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(began).Round(10*time.Millisecond))
}

// processesOf lists the live processes whose environment names dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	deadline := time.Now().Add(5 * time.Second)
	for {
		found = nil
		environs, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range environs {
			env, err := os.ReadFile(path)
			if err == nil && strings.Contains(string(env), "HOME="+dir) {
				cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
				found = append(found, filepath.Base(filepath.Dir(path))+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
			}
		}
		// The VM's helpers end by themselves once they see it gone.
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func queueLength(t *testing.T, node *RabbitNode, queue string) (int, error) {
	t.Helper()
	conn, err := amqp.Dial(node.URL("tester", "secret"))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	q, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
	return q.Messages, err
}

func publishOne(t *testing.T, node *RabbitNode, queue string) {
	t.Helper()
	conn, err := amqp.Dial(node.URL("tester", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	dc, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if !dc.Wait() {
		t.Fatal("not confirmed")
	}
}

func wantLength(t *testing.T, node *RabbitNode, queue string, want int) {
	t.Helper()
	wait.For(t, 30*time.Second, func() error {
		got, err := queueLength(t, node, queue)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s sees %d messages in %s, want %d", node.Name, got, queue, want)
		}
		return nil
	})
}

// One cluster through all it must bear, in one test: its start costs seconds.
func TestRabbitCluster(t *testing.T) {
	c := clusterOf(t, 3)
	const queue = "kept"
	wantLength(t, c.Nodes[0], queue, 0)

	t.Run("AllNodesAreOneCluster", func(t *testing.T) {
		for _, node := range c.Nodes {
			out, err := c.Eval(t.Context(), node, "length(rabbit_nodes:all_running()).")
			if err != nil || out != strconv.Itoa(len(c.Nodes)) {
				t.Errorf("%s counts %q nodes (%v), want %d", node.Name, out, err, len(c.Nodes))
			}
		}
		publishOne(t, c.Nodes[0], queue)
		wantLength(t, c.Nodes[2], queue, 1)
	})
	t.Run("AccountsCanBeAddedWhileItRuns", func(t *testing.T) {
		if err := c.AddUser(t.Context(), "late", "p@ss/word", "^$", "^$", "^$"); err != nil {
			t.Fatal(err)
		}
		conn, err := amqp.Dial(c.Nodes[1].URL("late", "p@ss/word"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := amqp.Dial(c.Nodes[1].URL("guest", "guest")); !errors.Is(err, amqp.ErrCredentials) {
			t.Errorf("guest got %v, want a refusal", err)
		}
	})
	t.Run("NodeStartsAloneAfterKill", func(t *testing.T) {
		for _, node := range c.Nodes {
			node.Process.Kill()
			start(t, node.Process.Start)
			wantLength(t, node, queue, 1)
		}
	})
	t.Run("VhostThatANodeLeftDownIsStarted", func(t *testing.T) {
		node := c.Nodes[2]
		if out, err := c.Eval(t.Context(), node, `rabbit_vhost_sup_sup:stop_and_delete_vhost(<<"/">>).`); err != nil {
			t.Fatal(out, err)
		}
		if err := node.Process.Ready(t.Context()); err == nil {
			t.Error("a node without its vhost is ready")
		}
		wait.For(t, time.Minute, func() error { return node.Process.Ready(t.Context()) })
	})
	t.Run("FrozenNodeThaws", func(t *testing.T) {
		node := c.Nodes[0]
		if err := node.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := node.Process.Ready(short); err == nil {
			t.Log("the frozen node's socket still answered")
		}
		if err := node.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		wantLength(t, node, queue, 1)
	})
	t.Run("AllStartTogetherAfterAllWereKilled", func(t *testing.T) {
		c.Kill()
		start(t, c.Start)
		wantLength(t, c.Nodes[1], queue, 1)
	})
	t.Run("AnotherOwnerFindsTheStateAfterStop", func(t *testing.T) {
		c.Stop()
		again, err := NewRabbitCluster(c.Dir, 3)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(again.Kill)
		start(t, again.Start)
		wantLength(t, again.Nodes[2], queue, 1)
		out, err := again.Ctl(t.Context(), again.Nodes[0], "list_users", "--silent")
		if err != nil || !strings.Contains(out, "late") {
			t.Errorf("rabbitmqctl list_users: %v\n%s", err, out)
		}
	})
}

package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/test/services"
)

// brokerDaemon answers requests that come through a real broker, wired as the
// agent wires it.
func brokerDaemon(t *testing.T, cluster *services.RabbitCluster, s *Server, h Handler) {
	t.Helper()
	c := broker.New(broker.Config{URLs: []string{cluster.Nodes[0].URL("host-gpu1", "secret")}, Host: "gpu1"})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	run := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				t.Errorf("broker client: %v", err)
			}
		})
	}
	reply := func(ctx context.Context, d *broker.Delivery, body []byte) broker.Verdict {
		if err := c.Reply(ctx, d, body); err != nil {
			return broker.Requeue(100 * time.Millisecond)
		}
		return broker.Done
	}
	run(c.Run)
	run(func(ctx context.Context) error {
		return c.ConsumeControl(ctx, 4, func(ctx context.Context, d *broker.Delivery) broker.Verdict {
			return reply(ctx, d, s.ServeDelivery(ctx, d.UserID, d.Body))
		})
	})
	run(func(ctx context.Context) error {
		return c.ConsumeSubmit(ctx, 4, func(ctx context.Context, d *broker.Delivery) broker.Verdict {
			r, err := h.Submit(ctx, Caller{User: d.UserID, Via: ViaBroker}, d.Body)
			return reply(ctx, d, Encode(r, err))
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-c.Ready():
	case <-time.After(time.Minute):
		_, why := c.Healthy()
		t.Fatalf("the broker client is not ready: %s", why)
	}
}

func startRabbit(t *testing.T) *services.RabbitCluster {
	t.Helper()
	cluster, err := services.NewRabbitCluster(t.TempDir(), 1)
	if errors.Is(err, services.ErrNoRabbit) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for user, p := range map[string]broker.Permissions{"host-gpu1": broker.HostPermissions(), "ada": broker.UserPermissions()} {
		if err := cluster.AddUser(ctx, user, "secret", p.Configure, p.Write, p.Read); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return cluster
}

func TestThroughTheBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	cluster := startRabbit(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(cluster.Nodes[0].URL("", ""), ":@", "", 1)
	c := Dial(config.Client{
		Sockets: []string{socketPath(t)}, // where no daemon is
		Timeout: job.Duration(20 * time.Second),
		Broker:  config.ClientBroker{URLs: []string{url}, User: "ada", PasswordFile: password},
	})
	defer c.Close()
	c.Patience = 0

	t.Run("WithoutADaemonNothingWasDone", func(t *testing.T) {
		_, err := c.Submit(t.Context(), submissionOf("true"))
		wantErr(t, err, ErrUnavailable)
	})

	h := newRecorder()
	s := NewServer(h, Options{})
	t.Cleanup(s.Stop)
	brokerDaemon(t, cluster, s, h)
	t.Run("SubmissionIsTheAccounts", func(t *testing.T) {
		sub := submissionOf("true")
		r, err := c.Submit(t.Context(), sub)
		if err != nil || r.ID != sub.ID || !r.Created || h.lastCaller() != (Caller{User: "ada", Via: ViaBroker}) {
			t.Errorf("got %+v, %v, from %+v", r, err, h.lastCaller())
		}
		if r, err = c.Submit(t.Context(), sub); err != nil || r.Created {
			t.Errorf("sent again: %+v, %v", r, err)
		}
		rows, err := c.States(t.Context(), []job.ID{sub.ID}, 100*time.Millisecond)
		if err != nil || len(rows.Jobs) != 1 || rows.Jobs[0].Submitter != "ada" {
			t.Errorf("got %+v, %v", rows, err)
		}
	})
	t.Run("RefusalKeepsItsKind", func(t *testing.T) {
		_, err := c.Submit(t.Context(), job.Submission{ID: job.NewID()})
		wantErr(t, err, ErrBadRequest)
		_, err = c.Show(t.Context(), job.NewID())
		wantErr(t, err, ErrNotFound)
	})
	t.Run("ManyAtOnce", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				sub := submissionOf("true")
				if r, err := c.Submit(t.Context(), sub); err != nil || r.ID != sub.ID {
					t.Errorf("got %+v, %v", r, err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("BrokerThatDiesIsUnavailable", func(t *testing.T) {
		cluster.Nodes[0].Process.Kill()
		_, err := c.Hosts(t.Context())
		wantErr(t, err, ErrUnavailable)
	})
}

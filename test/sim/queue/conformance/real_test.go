package conformance

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gpuqd/daemon/broker"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// real is a cluster of three nodes. The first leads the queues of the scripts
// and is the one that is broken; clients connect to the others, each through a
// wire of its own.
type real struct {
	cluster *services.RabbitCluster
	founder *broker.Client // connected to the first node alone
	wires   map[string][]*wire

	declared time.Time // the last queue
}

// password is that of every account.
const password = "secret"

func startReal(t *testing.T) *real {
	t.Helper()
	cluster, err := services.NewRabbitCluster(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Kill)
	for _, host := range []string{"founder", "a", "b"} {
		addUser(t, cluster, host, broker.HostPermissions())
	}
	addUser(t, cluster, "alice", broker.UserPermissions())
	began := time.Now()
	if err := cluster.Start(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Logf("three nodes were ready after %s", time.Since(began).Round(100*time.Millisecond))
	r := &real{cluster: cluster, wires: map[string][]*wire{}}
	r.founder, _ = r.run(t, "founder", cluster.Nodes[0].Port)
	return r
}

func addUser(t *testing.T, cluster *services.RabbitCluster, name string, p broker.Permissions) {
	t.Helper()
	if err := cluster.AddUser(t.Context(), name, password, p.Configure, p.Write, p.Read); err != nil {
		t.Fatal(err)
	}
}

func configOf(user string, ports ...int) broker.Config {
	cfg := broker.Config{
		User: user, Password: password, Host: user, TakeTimeout: takeTimeout, ConfirmTimeout: confirmTimeout,
		DialTimeout: 2 * time.Second, Heartbeat: heartbeat, BackoffMax: backoffMax,
	}
	for _, port := range ports {
		cfg.URLs = append(cfg.URLs, fmt.Sprintf("amqp://127.0.0.1:%d/", port))
	}
	return cfg
}

// run runs a client until the test ends, or the returned function is called.
func (r *real) run(t *testing.T, host string, ports ...int) (*broker.Client, func()) {
	t.Helper()
	c := broker.New(configOf(host, ports...))
	stop := background(t, c.Run)
	select {
	case <-c.Ready():
	case <-time.After(time.Minute):
		_, why := c.Healthy()
		t.Fatalf("not ready after a minute: %s", why)
	}
	return c, stop
}

func (r *real) connect(t *testing.T, host string) *client {
	t.Helper()
	var wires []*wire
	var ports []int
	for _, node := range r.cluster.Nodes[1:] {
		w := newWire(t, node.Port)
		wires, ports = append(wires, w), append(ports, w.port())
	}
	r.wires[host] = wires
	c, stop := r.run(t, host, ports...)
	return &client{Broker: c, host: host, stop: stop}
}

// queue has the founder declare it: a queue's first leader is where it was
// declared. An earlier leader may be back only now.
func (r *real) queue(t *testing.T, name string) string {
	t.Helper()
	name = "gpuq.job.test.normal.g1." + name
	wait.For(t, time.Minute, func() error { return r.founder.DeclareShape(t.Context(), name) })
	r.declared = time.Now()
	if leader := r.leader(t, name); leader != r.cluster.Nodes[0] {
		t.Fatalf("%s leads %s, want %s", leader.Name, name, r.cluster.Nodes[0].Name)
	}
	return name
}

// eval runs Erlang code in a node.
func (r *real) eval(t *testing.T, node *services.RabbitNode, code string) string {
	t.Helper()
	out, err := r.cluster.Eval(within(t, 20*time.Second), node, code)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *real) leader(t *testing.T, queue string) *services.RabbitNode {
	t.Helper()
	code := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<%q>>)), {_, N} = amqqueue:get_pid(Q), N.`, queue)
	out := strings.Trim(r.eval(t, r.cluster.Nodes[1], code), "'")
	for _, node := range r.cluster.Nodes {
		if node.Name == out {
			return node
		}
	}
	t.Fatalf("nobody leads %s: %s", queue, out)
	return nil
}

func (r *real) submit(ctx context.Context, body string) (string, error) {
	requester, err := broker.DialRequester(ctx, configOf("alice", r.cluster.Nodes[1].Port))
	if err != nil {
		return "", err
	}
	defer requester.Close()
	reply, err := requester.Submit(ctx, []byte(body))
	return string(reply), err
}

func (r *real) freeze(t *testing.T, _ string) { r.signal(t, syscall.SIGSTOP) }
func (r *real) thaw(t *testing.T, _ string)   { r.signal(t, syscall.SIGCONT) }

// signal does nothing to a node that was killed meanwhile.
func (r *real) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if !r.cluster.Nodes[0].Process.Running() {
		return
	}
	if err := r.cluster.Nodes[0].Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (r *real) late() time.Duration { return 30 * time.Second }

func (r *real) kill(t *testing.T, _ string) {
	node := r.cluster.Nodes[0].Process
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := node.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	node.Kill()
}

// settleTime is how long a node may keep to itself that it has a queue (its
// directory of queues is a dets table, which is written 3 s late). Where all
// nodes are killed within it, the queue comes back empty and never has a leader
// again: seen on 3.10.8.
const settleTime = 3500 * time.Millisecond

func (r *real) restart(t *testing.T) {
	t.Helper()
	wait.Until(t, "the last queue is known on disk", func() bool { return time.Since(r.declared) > settleTime })
	r.cluster.Kill()
	if err := r.cluster.Start(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func (r *real) drop(t *testing.T, host, duty string) {
	t.Helper()
	// A connection that is being opened has no properties yet: none.
	code := fmt.Sprintf(`length([rabbit_networking:close_connection(P, "a test") ||
		[{pid, P}, {client_properties, L}] <- rabbit_networking:connection_info_all([pid, client_properties]),
		is_list(L), lists:member({<<"connection_name">>, longstr, <<%q>>}, L)]).`, "gpuqd "+host+" "+duty)
	if n := r.eval(t, r.cluster.Nodes[1], strings.ReplaceAll(code, "\n", " ")); n != "1" {
		t.Fatalf("%s connections of %s were %s, want 1", duty, host, n)
	}
}

// everywhere runs Erlang code in each node.
func (r *real) everywhere(t *testing.T, code string) {
	t.Helper()
	for _, node := range r.cluster.Nodes {
		r.eval(t, node, code)
	}
}

func (r *real) alarm(t *testing.T, on bool) {
	t.Helper()
	if on {
		r.everywhere(t, "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).")
	} else {
		r.everywhere(t, "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")
	}
}

func (r *real) cut(_ *testing.T, host string) {
	for _, w := range r.wires[host] {
		w.set(true)
	}
}

func (r *real) mend(_ *testing.T, host string) {
	for _, w := range r.wires[host] {
		w.set(false)
	}
}

func (r *real) remove(t *testing.T, queue string) {
	t.Helper()
	r.eval(t, r.cluster.Nodes[1], fmt.Sprintf(
		`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<%q>>)), element(1, rabbit_amqqueue:delete(Q, false, false, <<"a test">>)).`, queue))
}

func (r *real) setConsumerTimeout(t *testing.T, d time.Duration) {
	t.Helper()
	tick := d / 4
	if d == 0 {
		d, tick = 30*24*time.Hour, time.Minute
	}
	r.everywhere(t, fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d).",
		d.Milliseconds(), tick.Milliseconds()))
}

func TestReal(t *testing.T) {
	r := startReal(t)
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			// What a script that failed has left down is not the next one's.
			if err := r.cluster.Start(within(t, 3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			s.run(t, r)
			t.Logf("it took %s", time.Since(began).Round(10*time.Millisecond))
		})
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

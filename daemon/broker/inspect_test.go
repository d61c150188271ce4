package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/health"
	"gpuqd/test/services"
	"gpuqd/test/wait"

	amqp "github.com/rabbitmq/amqp091-go"
)

// inspectWithin bounds one look on a busy machine; it returns much earlier.
const inspectWithin = 2 * time.Minute

// inspect looks and checks what holds for every look: advice where it is needed,
// and no secret anywhere.
func inspect(t *testing.T, look func(ctx context.Context) []health.Check) []health.Check {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), inspectWithin)
	defer cancel()
	checks := look(ctx)
	for _, c := range checks {
		if c.Saw == "" || (c.Advice == "") != (c.State == health.OK) {
			t.Errorf("%+v", c)
		}
		if strings.Contains(c.Saw+c.Advice, "secret of") {
			t.Errorf("a password is in %+v", c)
		}
	}
	return checks
}

// wantCheck expects a check of that name and state whose text has all the words.
func wantCheck(t *testing.T, checks []health.Check, name string, state health.State, words ...string) {
	t.Helper()
	found := slices.ContainsFunc(checks, func(c health.Check) bool {
		if c.Name != name || c.State != state {
			return false
		}
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Saw+" → "+c.Advice, w) })
	})
	if !found {
		t.Errorf("no check %q is %s with %q; got:\n%s", name, state, words, list(checks))
	}
}

// list writes checks for a person.
func list(checks []health.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "  %-7s %s: %s → %s\n", c.State, c.Name, c.Saw, c.Advice)
	}
	return b.String()
}

// adminChannel is a channel of an account that may do anything.
func adminChannel(t *testing.T) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(cluster.Nodes[0].URL("admin", "secret of admin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// eval runs Erlang code in a node.
func eval(t *testing.T, node *services.RabbitNode, code string) {
	t.Helper()
	if out, err := cluster.Eval(t.Context(), node, code); err != nil || strings.Contains(out, "error") {
		t.Fatalf("%s: %s %v", code, out, err)
	}
}

func TestInspect(t *testing.T) {
	c := runClient(t, configOf("host1"))
	good := queueOf(t, c, "looked-at")
	publish(t, c, good, "waits")
	all := func(shapes ...string) func(context.Context) []health.Check {
		return func(ctx context.Context) []health.Check {
			return c.Inspect(ctx, Inspection{Shared: true, Shapes: shapes})
		}
	}

	t.Run("HealthyClusterIsGoodInEveryCheck", func(t *testing.T) {
		wait.For(t, time.Minute, func() error {
			checks := inspect(t, all(good))
			if i := slices.IndexFunc(checks, func(c health.Check) bool { return c.State != health.OK }); i >= 0 {
				return fmt.Errorf("%+v", checks[i])
			}
			if len(checks) != 9 {
				return fmt.Errorf("%d checks: %s", len(checks), list(checks))
			}
			return nil
		})
		checks := inspect(t, all(good))
		wantCheck(t, checks, checkNode, health.OK, fmt.Sprintf("127.0.0.1:%d: RabbitMQ 3.", cluster.Nodes[2].Port), "logged in within")
		wantCheck(t, checks, checkNodes, health.OK, "3 of 3")
		wantCheck(t, checks, checkQueues, health.OK, "17 quorum queues")
		wantCheck(t, checks, checkLeaders, health.OK, "17 queues answer")
		d := takeOne(t, c, good)
		if string(d.Body) != "waits" || d.Redelivered {
			t.Errorf("the look has touched the message: %+v", d)
		}
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
	})
	t.Run("OneThatAsksForAnotherLooksAtItsOwnWayOnly", func(t *testing.T) {
		checks := inspect(t, func(ctx context.Context) []health.Check { return c.Inspect(ctx, Inspection{}) })
		if len(checks) != 6 {
			t.Errorf("%d checks: %s", len(checks), list(checks))
		}
	})
	t.Run("QueueWithOtherArgumentsIsNamed", func(t *testing.T) {
		ch := adminChannel(t)
		const queue = "gpuq.job.test.normal.g1.made-by-hand"
		if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}); err != nil {
			t.Fatal(err)
		}
		defer ch.QueueDelete(queue, false, false, false) //nolint:errcheck // the cluster goes with the tests
		const classic = "gpuq.job.test.normal.g1.classic"
		if _, err := ch.QueueDeclare(classic, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		defer ch.QueueDelete(classic, false, false, false) //nolint:errcheck // as above
		checks := inspect(t, all(queue, classic))
		wantCheck(t, checks, checkQueues, health.Fail, "2 of 19 queues", queue+": inequivalent arg 'x-dead-letter-exchange'", classic+": ", "rabbitmqctl delete_queue")
		wantCheck(t, checks, checkQueues, health.Warn, "2 queues of registered shapes are not declared", queue+".again")
		if _, err := ch.QueueDeclarePassive(queue+".again", true, false, false, false, nil); err == nil {
			t.Error("the look has declared a queue")
		}
	})
	t.Run("QueueWithoutLeaderIsNamed", func(t *testing.T) {
		queue := queueOf(t, c, "leaderless")
		stopMembers(t, queue)
		checks := inspect(t, all(queue))
		wantCheck(t, checks, checkLeaders, health.Warn, "1 of 17 queues do not answer", queue, "delete_queue")
		if i := slices.IndexFunc(checks, func(c health.Check) bool { return c.Name == checkQueues }); i >= 0 {
			t.Errorf("the other queues suffer: %+v", checks[i])
		}
		if ok, why := c.Healthy(); !ok {
			t.Errorf("the look has cost the daemon its connections: %s", why)
		}
	})
	t.Run("NodeThatIsDownIsNamed", func(t *testing.T) {
		cfg := configOf("host1")
		ports, err := services.FreePorts(2)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			cfg.URLs = append(cfg.URLs[1:], fmt.Sprintf("amqp://127.0.0.1:%d/", port))
		}
		down := New(cfg)
		look := func(ctx context.Context) []health.Check { return down.Inspect(ctx, Inspection{Shared: true}) }
		checks := inspect(t, look)
		wantCheck(t, checks, checkNode, health.Fail, fmt.Sprintf("127.0.0.1:%d", ports[0]), "connection refused", "systemctl start rabbitmq-server")
		wantCheck(t, checks, checkNodes, health.Fail, "1 of 3 configured nodes answer", "majority")
		wantCheck(t, checks, checkConnection, health.Fail, "connection")
	})
	t.Run("WrongPasswordIsSaidWithoutIt", func(t *testing.T) {
		cfg := configOf("host1")
		cfg.Password = "not the secret of host1"
		checks := inspect(t, func(ctx context.Context) []health.Check { return New(cfg).Inspect(ctx, Inspection{Shared: true}) })
		wantCheck(t, checks, checkNode, health.Fail, "denies", `"host1"`, "change_password")
	})
}

// stopMembers stops a queue's Raft members on two of three nodes until the test
// ends: the third can be elected by nobody.
func stopMembers(t *testing.T, queue string) {
	t.Helper()
	member := fmt.Sprintf("{list_to_atom(\"%%2F_%s\"), node()}", queue)
	for _, node := range cluster.Nodes[1:] {
		eval(t, node, "ra:stop_server(quorum_queues, "+member+").")
	}
	// The third may have led: it takes part in no election before it has noticed.
	t.Cleanup(func() {
		for _, node := range cluster.Nodes[1:] {
			if _, err := cluster.Eval(context.WithoutCancel(t.Context()), node, "ra:restart_server(quorum_queues, "+member+")."); err != nil {
				t.Error(err)
			}
		}
	})
}

// Four faults at once, since each question to rabbitmqctl takes seconds: a node
// down, an alarm, and a short consumer_timeout.
func TestInspectUnderFaults(t *testing.T) {
	c := runClient(t, configOf("host1"))
	queueOf(t, c, "under-faults")
	command := cluster.CtlCommand(cluster.Nodes[0])
	look := func(ctx context.Context) []health.Check {
		return InspectCtl(ctx, CtlInspection{Command: command, Vhost: c.Vhost(), Nodes: c.Nodes(), TimeLimit: time.Hour})
	}
	t.Run("HealthyClusterIsGoodInEveryCheck", func(t *testing.T) {
		checks := inspect(t, look)
		wantCheck(t, checks, CheckMembers, health.OK, "3 of 3 members run")
		wantCheck(t, checks, CheckAlarms, health.OK, "no alarm", "of disk free (alarm below 61.0 MiB)", "of memory (alarm above")
		wantCheck(t, checks, CheckConsumerTimeout, health.OK, "720h0m0s on rabbit", "3 nodes")
		wantCheck(t, checks, CheckQuorum, health.OK, "queues, all of their members online")
	})
	t.Run("NodeDownAlarmAndShortTimeoutAreNamed", func(t *testing.T) {
		last := cluster.Nodes[2]
		last.Process.Kill()
		eval(t, cluster.Nodes[1], "application:set_env(rabbit, consumer_timeout, 1800000).")
		eval(t, cluster.Nodes[0], "rabbit_disk_monitor:set_disk_free_limit(999000000000000).")
		defer func() {
			eval(t, cluster.Nodes[0], "rabbit_disk_monitor:set_disk_free_limit(64000000).")
			eval(t, cluster.Nodes[1], "application:set_env(rabbit, consumer_timeout, 2592000000).")
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if err := last.Process.Start(ctx); err != nil {
				t.Error(err)
			}
		}()
		wait.For(t, time.Minute, func() error {
			out, err := cluster.Eval(t.Context(), cluster.Nodes[0], "{length(rabbit_nodes:all_running()), length(rabbit_alarm:get_alarms())}.")
			if err != nil || out != "{2, 1}" {
				return fmt.Errorf("nodes and alarms are %s (%w)", out, err)
			}
			return nil
		})
		checks := inspect(t, look)
		wantCheck(t, checks, CheckMembers, health.Warn, "2 of 3 members run")
		wantCheck(t, checks, CheckAlarms, health.Fail, "disk alarm on "+cluster.Nodes[0].Name, "disk_free_limit")
		wantCheck(t, checks, CheckConsumerTimeout, health.Warn, "30m0s on "+cluster.Nodes[1].Name, "consumer_timeout = 2592000000")
		wantCheck(t, checks, CheckQuorum, health.Warn, "(2 of 3)")
		checks = inspect(t, func(ctx context.Context) []health.Check { return c.Inspect(ctx, Inspection{Shared: true}) })
		wantCheck(t, checks, checkNode, health.Warn, fmt.Sprintf("127.0.0.1:%d", last.Port))
		wantCheck(t, checks, checkNodes, health.Warn, "2 of 3 configured nodes answer")
		wantCheck(t, checks, checkPublishing, health.Fail, "accepts no messages", "disk")
		wantCheck(t, checks, checkQueues, health.OK)
	})
	t.Run("CommandThatFailsLeavesItUnknown", func(t *testing.T) {
		for _, wrong := range [][]string{nil, {"/no/such/rabbitmqctl"}, {"false"}, {"echo"}} {
			checks := inspect(t, func(ctx context.Context) []health.Check { return InspectCtl(ctx, CtlInspection{Command: wrong}) })
			for _, name := range CtlChecks {
				wantCheck(t, checks, name, health.Unknown, "by hand: rabbitmqctl")
			}
		}
	})
}

func TestJudgeVersion(t *testing.T) {
	for version, want := range map[string]health.State{
		"3.10.8": health.OK, "3.13.7": health.OK, "4.0.5": health.OK, "4.1.0-rc.1": health.OK,
		"3.9.29": health.Fail, "3.8.2": health.Fail, "2.8.4": health.Fail, "5.0.0": health.Warn, "new": health.Warn,
	} {
		got := judgeVersion([]visit{{product: "RabbitMQ", version: version}}, []string{"RabbitMQ " + version})
		if got.State != want {
			t.Errorf("%s is %s, want %s: %s", version, got.State, want, got.Saw)
		}
	}
	mixed := []visit{{product: "RabbitMQ", version: "3.13.7"}, {product: "RabbitMQ", version: "4.0.5"}}
	if got := judgeVersion(mixed, []string{"RabbitMQ 3.13.7", "RabbitMQ 4.0.5"}); got.State != health.Warn {
		t.Errorf("two versions: %+v", got)
	}
}

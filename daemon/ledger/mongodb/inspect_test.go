package mongodb_test

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/mongodb"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func wantCheck(t *testing.T, checks []health.Check, name string, state health.State, words ...string) {
	t.Helper()
	found := slices.ContainsFunc(checks, func(c health.Check) bool {
		return c.Name == name && c.State == state && (c.Advice == "") == (state == health.OK) &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Saw+" "+c.Advice, w) })
	})
	if !found {
		t.Errorf("no check %q is %s with %q: %+v", name, state, words, checks)
	}
}

func TestInspect(t *testing.T) {
	m := startServer(t)
	l, err := ledger.Open(t.Context(), openTest(t, mongodb.Options{URI: m.URI(), Database: "inspected", SingleNode: true, Timeout: 2 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	look := func(ctx context.Context) []health.Check {
		return l.Inspect(ctx, ledger.Inspection{Renew: time.Minute, Shared: true})
	}
	t.Run("SoundServerIsGoodInEveryCheck", func(t *testing.T) {
		checks := look(t.Context())
		wantCheck(t, checks, "identity", health.OK, "mongodb, id "+l.ID())
		wantCheck(t, checks, "latency", health.OK, "median of 20")
		wantCheck(t, checks, "compare-and-set", health.OK, "of 16 racing")
		wantCheck(t, checks, "concerns", health.OK, "w: majority, j: true")
		wantCheck(t, checks, "members", health.OK, "single_node = true accepts")
	})
	t.Run("FrozenServerIsAFailureWithWhatToDo", func(t *testing.T) {
		if err := m.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		checks := look(t.Context())
		if err := m.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		wantCheck(t, checks, "latency", health.Fail, "does not answer", "majority of the replica set")
		if len(checks) != 1 {
			t.Errorf("%d checks of a ledger that does not answer: %+v", len(checks), checks)
		}
	})
}

// No replica set can be had for the tests: what its members say comes from the
// far end of the wire.
func TestInspectMembers(t *testing.T) {
	member := func(name, state string, health float64) bson.D {
		return bson.D{{Key: "name", Value: name}, {Key: "health", Value: health}, {Key: "stateStr", Value: state}}
	}
	status := func(members ...bson.D) bson.D {
		list := bson.A{}
		for _, m := range members {
			list = append(list, m)
		}
		return bson.D{{Key: "ok", Value: 1}, {Key: "set", Value: "gpuq"}, {Key: "members", Value: list}}
	}
	denied := bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 13}, {Key: "codeName", Value: "Unauthorized"}, {Key: "errmsg", Value: "not authorized"}}
	for name, c := range map[string]struct {
		status bson.D
		want   health.State
		words  []string
	}{
		"AllWell":             {status(member("a", "PRIMARY", 1), member("b", "SECONDARY", 1), member("c", "SECONDARY", 1)), health.OK, []string{"replica set gpuq: 3 of 3"}},
		"OneDown":             {status(member("a", "PRIMARY", 1), member("b", "SECONDARY", 1), member("c", "(not reachable/healthy)", 0)), health.Warn, []string{"2 of 3", "c is (not reachable/healthy)"}},
		"NoMajority":          {status(member("a", "SECONDARY", 1), member("b", "(not reachable/healthy)", 0), member("c", "RECOVERING", 1)), health.Fail, []string{"1 of 3", "majority"}},
		"MayNotBeAsked":       {denied, health.Unknown, []string{"3 members with data", "clusterMonitor"}},
		"ArbiterIsNoneOfThem": {status(member("a", "PRIMARY", 1), member("b", "SECONDARY", 1), member("c", "SECONDARY", 1), member("d", "ARBITER", 1)), health.OK, []string{"3 of 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t, nil)
			me := f.listener.Addr().String()
			f.answers = map[string]bson.D{
				"replSetGetStatus": c.status,
				"hello": {
					{Key: "ok", Value: 1},
					{Key: "isWritablePrimary", Value: true},
					{Key: "helloOk", Value: true},
					{Key: "setName", Value: "fake"},
					{Key: "setVersion", Value: 1},
					{Key: "me", Value: me},
					{Key: "primary", Value: me},
					{Key: "hosts", Value: bson.A{me}},
					{Key: "passives", Value: bson.A{"127.0.0.1:1", "127.0.0.1:2"}},
					{Key: "minWireVersion", Value: 0},
					{Key: "maxWireVersion", Value: 21},
					{Key: "logicalSessionTimeoutMinutes", Value: 30},
					{Key: "maxBsonObjectSize", Value: 16 << 20},
					{Key: "maxMessageSizeBytes", Value: 48000000},
					{Key: "maxWriteBatchSize", Value: 100000},
				},
			}
			store := openTest(t, mongodb.Options{URI: f.uri(), Timeout: 10 * time.Second})
			wantCheck(t, store.Inspect(t.Context()), "members", c.want, c.words...)
		})
	}
}

package campaign

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
)

// tellAll lists events in short, in their order.
func tellAll(events []history.Event) (list []string) {
	for _, e := range events {
		list = append(list, fmt.Sprintf("%g %s %s %d/%d", float64(e.At.UnixMilli())/1000, e.Kind, e.Host,
			e.Tag.Generation/generationsPerLife*100+e.Tag.Generation%generationsPerLife, e.Tag.Delivery))
	}
	return list
}

func logged(second float64, msg string, generation, tag uint64) entry {
	return entry{Time: at(second), Msg: msg, Job: string(testID), Generation: generation, Tag: tag, host: "worker_1"}
}

func TestDeliveriesGoBackWithTheirConnectionAndTheirDaemon(t *testing.T) {
	h := &harvest{
		ended: at(99),
		lives: []life{{host: "worker_1", began: at(0), over: at(10)}, {host: "worker_1", began: at(11)}},
		logs: []entry{
			logged(1, "message taken", 1, 1),
			logged(2, "message acked", 1, 1),
			logged(3, "message taken", 1, 2),
			logged(4, takeLost, 0, 0),
			logged(5, "message acked", 1, 2), // of a lost connection: the broker never sees it
			logged(6, "message taken", 2, 1),
			logged(7, "message given back", 2, 1),
			logged(8, "message taken", 2, 2),
			logged(12, "message taken", 1, 1), // another daemon counts from 1
			logged(13, "message acked", 1, 1),
			logged(14, "message taken", 1, 2),
		},
	}
	want := []string{
		"1 taken worker_1 1/1", "2 acked worker_1 1/1", "3 taken worker_1 1/2", "4 returned worker_1 1/2",
		"6 taken worker_1 2/1", "7 returned worker_1 2/1", "8 taken worker_1 2/2", "10 returned worker_1 2/2",
		"12 taken worker_1 101/1", "13 acked worker_1 101/1", "14 taken worker_1 101/2", "99 returned worker_1 101/2",
	}
	if got := tellAll(h.messages()); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// row is a row of a document's history.
func row(second float64, state job.State, id string) job.Change {
	return job.Change{At: job.At(at(second)), State: state, ID: id, Host: "worker_1"}
}

func TestTransitions(t *testing.T) {
	doc := &job.Job{ID: testID, History: []job.Change{
		row(1, job.Queued, ""), row(2, job.Claimed, "c1"), row(2.1, job.Running, "start-c1"), row(3, job.Retrying, "commit-c1"),
		row(9, job.Claimed, "c2"), row(8.9, job.Running, "start-c2"), row(10, job.Succeeded, "commit-c2"),
	}}
	h := &harvest{journal: map[attemptKey]journalled{
		{"worker_1", runner.Key{JobID: testID, Attempt: 2}}: {devices: []string{"GPU-a"}},
	}}
	events := h.transitions(doc, map[write]time.Time{
		{testID, 1, "attempt finished"}: at(8), // the ledger was away for five seconds
		{testID, 2, "attempt finished"}: at(10.01),
	})
	t.Run("ClaimsGrowFenceAndAttempt", func(t *testing.T) {
		for i, want := range []int{0, 1, 1, 1, 2, 2, 2} {
			if events[i].Attempt != want || events[i].Fence != int64(want) {
				t.Errorf("%s: attempt %d, fence %d, want %d", events[i].State, events[i].Attempt, events[i].Fence, want)
			}
		}
		if e := events[5]; e.Claim != "c2" || !slices.Equal(e.Devices, []string{"GPU-a"}) {
			t.Errorf("running: %+v", e)
		}
	})
	t.Run("CommitThatWaitedForTheLedgerCountsFromItsLog", func(t *testing.T) {
		if !events[3].At.Equal(at(8)) || !events[6].At.Equal(at(10)) {
			t.Errorf("commits at %v and %v", events[3].At, events[6].At)
		}
	})
	t.Run("OrderOfTheRowsStands", func(t *testing.T) {
		if !slices.IsSortedFunc(events, func(a, b history.Event) int { return a.At.Compare(b.At) }) {
			t.Error("the rows are out of order")
		}
	})
}

func TestExecutionThatDiedTellsItsShimsExitCode(t *testing.T) {
	key := attemptKey{"worker_1", runner.Key{JobID: testID, Attempt: 1}}
	x := Execution{Job: testID, Attempt: 1, Host: "worker_1", Began: at(1), Last: at(5)}
	h := &harvest{journal: map[attemptKey]journalled{key: {exit: &runner.Exit{Code: 137, Ended: at(5.2)}}}}
	events := h.execution(x)
	if last := events[len(events)-1]; len(events) != 2 || last.Kind != history.Finished || last.Code != 137 || last.Complete || !last.At.Equal(at(5)) {
		t.Errorf("killed: %v", events)
	}
	h.journal[key].exit.Ended = at(30)
	events = h.execution(x)
	if len(events) != 3 || events[1].Kind != history.Halted || !events[1].At.Equal(at(5)) || !events[2].At.Equal(at(30)) {
		t.Errorf("frozen and then killed: %v", events)
	}
}

func TestLives(t *testing.T) {
	line := func(second int, msg, rest string) string {
		return fmt.Sprintf(`{"time":%q,"msg":%q,"unit":"worker_1"%s}`+"\n", at(float64(second)).UTC().Format("2006-01-02T15:04:05Z"), msg, rest)
	}
	path := filepath.Join(t.TempDir(), "supervisor.json")
	text := line(1, "unit changed", `,"state_from":"starting","state_to":"running"`) +
		line(5, "unit ended", `,"reason":"signal: killed"`) +
		line(5, "unit changed", `,"state_from":"running","state_to":"pausing"`) +
		line(6, "unit changed", `,"state_from":"pausing","state_to":"starting"`) +
		line(7, "unit not started", `,"err":"exit status 1"`) +
		line(7, "unit changed", `,"state_from":"starting","state_to":"pausing"`) +
		line(8, "unit changed", `,"state_from":"pausing","state_to":"starting"`) +
		line(9, "unit changed", `,"state_from":"starting","state_to":"running"`) +
		line(20, "unit changed", `,"state_from":"running","state_to":"down"`)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lives, err := readLives(path, []string{"worker_1"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lives {
		got = append(got, fmt.Sprintf("%d-%d %t", l.began.Unix(), l.over.Unix(), l.byItself()))
	}
	if want := []string{"1-5 false", "6-7 true", "8-20 false"}; !slices.Equal(got, want) {
		t.Errorf("lives %v, want %v", got, want)
	}
}

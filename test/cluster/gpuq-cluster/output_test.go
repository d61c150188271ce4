package main

import (
	"strings"
	"testing"
	"time"

	"gpuqd/test/cluster/supervisor"
)

func TestFiguresAreReadFromTheLogTail(t *testing.T) {
	for log, want := range map[string]string{
		"epoch 1\nresult accuracy=0.9600 loss=0.08 lr=0.1\n": "accuracy=0.9600 loss=0.08",
		"result accuracy=1":      "accuracy=1",
		"no result accuracy=0.5": "-",
		"":                       "-",
	} {
		if got := figures(log); got != want {
			t.Errorf("figures of %q: %q, want %q", log, got, want)
		}
	}
}

func TestReadIDs(t *testing.T) {
	const id = "01a203e4-62c5-7ca4-8c75-cbda612dbe55"
	if ids, err := readIDs([]byte(id + "\n" + id + "\n")); err != nil || len(ids) != 2 || string(ids[0]) != id {
		t.Errorf("got %v, %v", ids, err)
	}
	if _, err := readIDs([]byte("gpuqctl: no daemon answered\n")); err == nil {
		t.Error("what is no ID was taken for one")
	}
}

func TestStatusTableShowsWhatIsWrong(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	err := writeTable(&out, []supervisor.Status{
		{Name: "redis", Phase: supervisor.Running, Pid: 7, Port: 6379, Since: now.Add(-time.Minute)},
		{Name: "worker_1", Phase: supervisor.Pausing, Since: now, Restarts: 3, Problem: "exit status 1"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	const want = `NAME      STATE    SINCE  PID  PORT  RESTARTS  PROBLEM
redis     running  1m0s   7    6379  0         -
worker_1  pausing  0s     -    -     3         exit status 1
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

package main

import "testing"

func TestParseTakesItsOwnWordsOnly(t *testing.T) {
	for _, c := range []struct {
		args []string
		want options
		ok   bool
	}{
		{[]string{"run", "/a"}, options{dir: "/a", answerFD: -1}, true},
		{[]string{"run", "--answer-fd=3", "--no-cgroup", "/a"}, options{dir: "/a", answerFD: 3, noCgroup: true}, true},
		{[]string{"run", "--answer=/a/fifo", "--unit=x.service", "--boot=b", "/a"}, options{dir: "/a", answerFD: -1, answer: "/a/fifo", unit: "x.service", boot: "b"}, true},
		{[]string{"run", "--answer=", "/a"}, options{}, false},
		{[]string{"run", "--unit=", "/a"}, options{}, false},
		{[]string{"run", "--answer-fd=2", "/a"}, options{}, false},
		{[]string{"run", "--answer-fd=x", "/a"}, options{}, false},
		{[]string{"run", "--no-such", "/a"}, options{}, false},
		{[]string{"run", "--no-cgroup"}, options{}, false},
		{[]string{"run"}, options{}, false},
		{[]string{"start", "/a"}, options{}, false},
		{nil, options{}, false},
	} {
		got, ok := parse(c.args)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %+v, %v", c.args, got, ok)
		}
	}
}

func TestLookPathUsesTheCommandsOwnPath(t *testing.T) {
	if path, err := lookPath("sh", []string{"PATH=/no/such:/bin"}); err != nil || path != "/bin/sh" {
		t.Errorf("got %q, %v", path, err)
	}
	if path, err := lookPath("sh", []string{"PATH=/no/such"}); err == nil {
		t.Errorf("got %q, want an error", path)
	}
	if path, err := lookPath("sh", []string{"XPATH=/bin"}); err == nil {
		t.Errorf("got %q, want an error", path)
	}
}

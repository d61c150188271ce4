package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/test/wait"

	"golang.org/x/sys/unix"
)

// program starts this test binary as gpuqctl. Its end kills it.
func program(t *testing.T, d *daemon, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{"--socket", d.path, "--timeout", "0s"}, args...)...)
	cmd.Env = append(append(os.Environ(), mainEnv+"=1", "NO_COLOR=", "TERM=xterm"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// terminal opens a terminal of that many columns: the side of the person, and
// that of the program.
func terminal(t *testing.T, columns int) (person, screen *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals can be made here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return person, screen
}

// onTerminal runs gpuqctl with a terminal as its stdout and returns what it wrote.
func onTerminal(t *testing.T, d *daemon, columns int, env []string, args ...string) string {
	t.Helper()
	person, screen := terminal(t, columns)
	cmd := program(t, d, env, args...)
	cmd.Stdout = screen
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen.Close() // the program's is the last: its end is the end of the output
	out, _ := io.ReadAll(person)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

const escape = "\x1b["

func TestColours(t *testing.T) {
	d := startDaemon(t)
	d.put(someJobs()...)
	red := escape + "31mfailed" + escape + "0m"
	t.Run("OnATerminal", func(t *testing.T) {
		out := onTerminal(t, d, 200, nil, "list")
		if !strings.Contains(out, red) || !strings.Contains(out, escape+"1mID") || !strings.Contains(out, escape+"33mwaiting (held)") {
			t.Errorf("%q", out)
		}
	})
	for name, c := range map[string]struct{ env, args []string }{
		"NotWithNO_COLOR":  {[]string{"NO_COLOR=1"}, []string{"list"}},
		"NotOnADumbOne":    {[]string{"TERM=dumb"}, []string{"list"}},
		"NotWithNever":     {nil, []string{"list", "--color", "never"}},
		"NotInJSON":        {nil, []string{"list", "--json"}},
		"NotInJSONEver":    {nil, []string{"list", "--json", "--color", "always"}},
		"NotInCompletions": {nil, []string{"completion", "fish", "--color", "always"}},
	} {
		t.Run(name, func(t *testing.T) {
			if out := onTerminal(t, d, 200, c.env, c.args...); strings.Contains(out, escape) || out == "" {
				t.Errorf("%q", out)
			}
		})
	}
	t.Run("NotOfWhatIsNotThere", func(t *testing.T) {
		d.hosts = []control.HostRow{{Name: "gpu1", Live: true, State: "live", DevicesTotal: 2, DevicesFree: 2}}
		if out := onTerminal(t, d, 200, nil, "hosts"); strings.Contains(out, escape+"31m") || !strings.Contains(out, "gpu1") {
			t.Errorf("a host that is well has red in its line: %q", out)
		}
	})
	t.Run("NotInAPipe", func(t *testing.T) {
		out, err := program(t, d, nil, "list").Output()
		if err != nil || strings.Contains(string(out), escape) || !strings.Contains(string(out), "released when one of them ends\n") {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("InAPipeIfAskedFor", func(t *testing.T) {
		out, err := program(t, d, []string{"NO_COLOR=1"}, "list", "--color", "always").Output()
		if err != nil || !strings.Contains(string(out), red) {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("TheyTakeNoColumns", func(t *testing.T) {
		plain := onTerminal(t, d, 120, nil, "list", "--color", "never")
		coloured := onTerminal(t, d, 120, nil, "list")
		for _, code := range []string{"0", "1", "31", "32", "33"} {
			coloured = strings.ReplaceAll(coloured, escape+code+"m", "")
		}
		if plain != coloured {
			t.Errorf("without colours\n%s\nwith, and taken out again\n%s", plain, coloured)
		}
	})
}

func TestWidths(t *testing.T) {
	d := startDaemon(t)
	d.put(someJobs()...)
	hosted(d)
	d.mu.Lock()
	d.hosts[0].Drained = &control.Drain{Who: "root", Reason: strings.Repeat("원인을 찾는 중 ", 9), At: ago(time.Hour)}
	d.events = []control.EventRow{{Who: "ada", What: "kill", Target: string(idA), Host: "gpu1", Why: strings.Repeat("long ", 40)}}
	d.mu.Unlock()
	for _, columns := range []int{80, 100, 132, 200} {
		for _, verb := range []string{"list", "hosts", "events"} {
			t.Run(fmt.Sprintf("%s/%d", verb, columns), func(t *testing.T) {
				out := onTerminal(t, d, columns, nil, verb, "--color", "never")
				for line := range strings.Lines(out) {
					if n := displayWidth(strings.TrimSuffix(line, "\n")); n > columns {
						t.Errorf("%d columns: %s", n, line)
					}
				}
				if verb == "list" && (!strings.Contains(out, string(idA)) || !strings.Contains(out, string(idD))) {
					t.Errorf("an ID is cut:\n%s", out)
				}
				if !strings.Contains(out, "…") && columns < 200 {
					t.Errorf("nothing is cut:\n%s", out)
				}
			})
		}
	}
	t.Run("WhatMayNotBeCutIsWhole", func(t *testing.T) {
		if out := onTerminal(t, d, 20, nil, "list"); !strings.Contains(out, string(idA)) || !strings.Contains(out, "waiting (held)") {
			t.Errorf("%s", out)
		}
	})
}

// singleLetters is 학습 as some systems write file names: a consonant, its vowel
// and its final stand for each syllable.
const singleLetters = "\u1112\u1161\u11a8\u1109\u1173\u11b8"

// Columns stay under their titles whatever the letters.
func TestColumnsOfWideLetters(t *testing.T) {
	names := []string{
		"plain", "학습 작업", singleLetters, "学習", "ﾊﾝｶｸ", "café", "cafe\u0301", "e\u0301\u0323\u0302", "🚀 run", "Ａ wide", "नमस्ते", "",
	}
	tab := newTable("NAME", "END").mayCut("NAME")
	for _, name := range names {
		tab.add(name, "x")
	}
	for _, columns := range []int{0, 80, 7} {
		lines := slices.Collect(strings.Lines(tab.render(columns, false)))
		for _, line := range lines[1:] {
			before := strings.TrimSuffix(line, "x\n")
			if got, want := displayWidth(before), 9+len(gap); got != want {
				t.Errorf("%d columns before the last cell, want %d: %q", got, want, line)
			}
		}
	}
	for text, want := range map[string]int{
		"": 0, "abc": 3, "학습": 4, singleLetters: 4, "学習": 4, "ﾊﾝ": 2, "é": 1, "e\u0301": 1, "🚀": 2, "Ａ": 2, "…": 1, "─": 1,
	} {
		if got := displayWidth(text); got != want {
			t.Errorf("%q takes %d columns, want %d", text, got, want)
		}
	}
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"학습 작업", 9, "학습 작업"}, {"학습 작업", 8, "학습 작…"}, {"학습 작업", 6, "학습…"}, {"학습", 3, "학…"}, {"학습", 2, "…"}, {"a b", 3, "a b"}, {"a bc", 3, "a…"},
	} {
		if got := cut(c.text, c.n); got != c.want {
			t.Errorf("%q cut to %d is %q, want %q", c.text, c.n, got, c.want)
		}
	}
}

// started runs gpuqctl until the daemon has been asked, and returns it with what
// it writes to stderr.
func started(t *testing.T, d *daemon, asked <-chan struct{}, args ...string) (*exec.Cmd, *safeBuffer) {
	t.Helper()
	cmd := program(t, d, nil, args...)
	var stderr safeBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	return cmd, &stderr
}

// interruptedWith sends real signals and returns the exit code, below 0 for a
// signal's own end.
func interruptedWith(t *testing.T, cmd *exec.Cmd, signals int) int {
	t.Helper()
	for range signals {
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait() // the code says it
	return cmd.ProcessState.ExitCode()
}

func TestSignals(t *testing.T) {
	t.Run("OneCtrlCEndsTheWaitOfADrain", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		asked := make(chan struct{}, 1000)
		d.mu.Lock()
		d.onHosts = func() { asked <- struct{}{} }
		d.mu.Unlock()
		cmd, stderr := started(t, d, asked, "drain", "gpu1", "--reason", "x", "--wait")
		if code := interruptedWith(t, cmd, 1); code != exitInterrupted || !strings.Contains(stderr.String(), "gpu1 stays drained: gpuqctl drain gpu1 --wait waits on") {
			t.Errorf("exit %d, stderr %q", code, stderr.String())
		}
	})
	t.Run("OneCtrlCEndsFollowedLogs", func(t *testing.T) {
		d := startDaemon(t)
		asked := make(chan struct{}, 1000)
		d.mu.Lock()
		d.logs = func(control.LogsArgs) (control.LogsReply, error) {
			asked <- struct{}{}
			return control.LogsReply{State: job.Queued}, nil
		}
		d.mu.Unlock()
		cmd, stderr := started(t, d, asked, "logs", "-f", string(idA))
		if code := interruptedWith(t, cmd, 1); code != exitInterrupted || !strings.Contains(stderr.String(), "job "+string(idA)+" goes on: ") {
			t.Errorf("exit %d, stderr %q", code, stderr.String())
		}
	})
	t.Run("OneCtrlCLetsTheRequestUnderWayFinish", func(t *testing.T) {
		d := startDaemon(t)
		d.put(control.JobRow{ID: idA, State: job.Queued}, control.JobRow{ID: idB, State: job.Queued})
		asked, answer := make(chan struct{}, 1000), make(chan struct{})
		d.mu.Lock()
		d.onHold = func(job.ID) { asked <- struct{}{}; <-answer }
		d.mu.Unlock()
		cmd, stderr := started(t, d, asked, "hold", string(idA), string(idB))
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "gpuqctl says that it waits for the answer", func() bool { return strings.Contains(stderr.String(), "waiting for the answer") })
		close(answer)
		if code := interruptedWith(t, cmd, 0); code != exitInterrupted || !strings.Contains(stderr.String(), "not held: "+string(idB)+"\n") {
			t.Errorf("exit %d, stderr %q", code, stderr.String())
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.jobs[idA].State != job.Waiting || d.jobs[idB].State != job.Queued {
			t.Errorf("jobs %+v", d.jobs)
		}
	})
	t.Run("ASecondCtrlCEndsItAtOnce", func(t *testing.T) {
		d := startDaemon(t)
		d.put(control.JobRow{ID: idA, State: job.Queued})
		asked, answer := make(chan struct{}, 1000), make(chan struct{})
		defer close(answer)
		d.mu.Lock()
		d.onHold = func(job.ID) { asked <- struct{}{}; <-answer }
		d.mu.Unlock()
		cmd, stderr := started(t, d, asked, "hold", string(idA))
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "gpuqctl says that it waits for the answer", func() bool { return strings.Contains(stderr.String(), "waiting for the answer") })
		if code := interruptedWith(t, cmd, 1); code != -1 {
			t.Errorf("exit %d: the second signal was not the system's own", code)
		}
	})
	t.Run("CtrlCAtAQuestionDoesNothing", func(t *testing.T) {
		d := startDaemon(t)
		set(d)
		person, screen := terminal(t, 80)
		cmd := program(t, d, nil, "dead", "purge", "5f2a9c01")
		cmd.Stdin, cmd.Stderr = screen, screen
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(person)
		if question, err := in.ReadString('?'); err != nil || !strings.Contains(question, "forget 1 message for good") {
			t.Fatalf("%v: %q", err, question)
		}
		code := interruptedWith(t, cmd, 1)
		d.mu.Lock()
		defer d.mu.Unlock()
		if code != exitInterrupted || len(d.dead) != 3 || len(d.purges) != 0 {
			t.Errorf("exit %d, %d left", code, len(d.dead))
		}
	})
}

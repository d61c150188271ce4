package runner_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/journald/journaldtest"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/runnertest"
)

// BenchmarkStart measures Begin and Start together, and how long after the begin
// of both the command's own first work was done (date itself takes about 1 ms).
// The starters take turns in one run, so that their ratio holds on any machine.
func BenchmarkStart(tb *testing.B) {
	tb.Run("process", func(tb *testing.B) { benchStart(tb, newProcessStarter) })
	tb.Run("systemd", func(tb *testing.B) { benchStart(tb, newSystemdStarter) })
	tb.Run("systemd-1000-ended", func(tb *testing.B) {
		needSystemd(tb)
		endedUnits(tb, 1000)
		benchStart(tb, newSystemdStarter)
	})
}

// endedUnits makes units that have ended and are still loaded, as those of other
// programs are whose failures nobody has looked at.
func endedUnits(tb *testing.B, n int) {
	tb.Helper()
	tb.Cleanup(func() { _ = exec.Command("systemctl", "stop", "gpuqd-bench-*.service").Run() })
	for i := range n {
		unit := fmt.Sprintf("--unit=gpuqd-bench-%d", i)
		if out, err := exec.Command("systemd-run", "--quiet", "--no-block", "--property=RemainAfterExit=yes", unit, "/bin/true").CombinedOutput(); err != nil {
			tb.Fatalf("%v: %s", err, out)
		}
	}
}

func benchStart(tb *testing.B, newStarter func(testing.TB) runner.Starter) {
	b := runnertest.NewBench(tb, newStarter)
	var began, first time.Duration
	for tb.Loop() {
		in := b.Intent("")
		in.Command = []string{"/bin/date", "+%s.%N"}
		at := time.Now()
		a := b.Begin(in)
		began += time.Since(at)
		b.Must(b.Starter.Start(tb.Context(), a))
		tb.StopTimer()
		b.Wait(a)
		out, err := a.ReadLog(0, 100)
		b.Must(err)
		sec, nano, _ := strings.Cut(strings.TrimSpace(string(out)), ".")
		s, err := strconv.ParseInt(sec, 10, 64)
		b.Must(err)
		n, err := strconv.ParseInt(nano, 10, 64)
		b.Must(err)
		first += time.Unix(s, n).Sub(at)
		tb.StartTimer()
	}
	tb.ReportMetric(began.Seconds()*1e3/float64(tb.N), "ms-begin/op")
	tb.ReportMetric(first.Seconds()*1e3/float64(tb.N), "ms-to-first-work/op")
}

// What a job that does nothing costs: shim, its second stage and the command, from
// the intent to the shim's end, one after the other. The processor time is that of
// all of them, on however busy a machine.
func BenchmarkAttempt(tb *testing.B) {
	b := runnertest.NewBench(tb, newProcessStarter)
	before := childrenCPU(b)
	for tb.Loop() {
		in := b.Intent("")
		in.Command = []string{"/bin/true"}
		b.Wait(b.Start(in))
	}
	tb.ReportMetric((childrenCPU(b)-before).Seconds()*1e3/float64(tb.N), "ms-cpu/op")
}

// What the journal adds to an attempt that prints ten lines: the same with and
// without a socket that takes them. Only the ratio says anything.
func BenchmarkOutput(tb *testing.B) {
	for name, journal := range map[string]bool{"LogOnly": false, "LogAndJournal": true} {
		tb.Run(name, func(tb *testing.B) {
			b := runnertest.NewBench(tb, newProcessStarter)
			r := journaldtest.Listen(tb, "")
			before := childrenCPU(b)
			for tb.Loop() {
				in := b.Intent("")
				in.Command = []string{"/usr/bin/seq", "10"}
				if journal {
					in.JournalSocket = r.Path
				}
				exit := b.Wait(b.Start(in))
				tb.StopTimer()
				if got := len(r.Rest(b)); journal && exit.JournalDroppedLines == 0 && got != 10 {
					b.Fatalf("%d lines of 10 arrived", got)
				}
				tb.StartTimer()
			}
			tb.ReportMetric((childrenCPU(b)-before).Seconds()*1e3/float64(tb.N), "ms-cpu/op")
		})
	}
}

func childrenCPU(b *runnertest.Bench) time.Duration {
	var ru unix.Rusage
	b.Must(unix.Getrusage(unix.RUSAGE_CHILDREN, &ru))
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkShimMemory reports what a shim that has run for some ticks holds.
func BenchmarkShimMemory(tb *testing.B) {
	b := runnertest.NewBench(tb, newProcessStarter)
	in := b.Intent("sleep 1000")
	in.DeadlineFile = b.Lease(time.Hour, runner.SessionLive)
	a := b.Start(in)
	pid := b.Started(a).ShimPID
	for tb.Loop() {
		time.Sleep(3 * time.Second)
	}
	for _, field := range []string{"VmRSS", "RssAnon", "Threads"} {
		tb.ReportMetric(procField(b, fmt.Sprintf("/proc/%d/status", pid), field), field)
	}
	tb.ReportMetric(procField(b, fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss"), "Pss")
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	b.Must(err)
	ns, err := strconv.ParseFloat(strings.Fields(string(stat))[0], 64)
	b.Must(err)
	tb.ReportMetric(ns/1e6, "main-thread-cpu-ms")
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	b.Wait(a)
}

func procField(b *runnertest.Bench, path, field string) float64 {
	data, err := os.ReadFile(path)
	b.Must(err)
	for line := range strings.Lines(string(data)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			n, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			b.Must(err)
			return n
		}
	}
	b.Fatalf("%s has no %s", path, field)
	return 0
}

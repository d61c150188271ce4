package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// TestTextsAreWholeInEveryLanguage: each text is there, and takes the same
// values in the same places.
func TestTextsAreWholeInEveryLanguage(t *testing.T) {
	english, korean := textsOf(reflect.ValueOf(englishText), ""), textsOf(reflect.ValueOf(koreanText), "")
	hangul := regexp.MustCompile(`\p{Hangul}`)
	if len(english) < 60 {
		t.Fatalf("only %d texts were found", len(english))
	}
	for name, text := range english {
		other, ok := korean[name]
		switch {
		case !ok || (text == "") != (other == ""):
			t.Errorf("%s is not in both languages: %q, %q", name, text, other)
		case !slices.Equal(valuesOf(text), valuesOf(other)):
			t.Errorf("%s takes other values: %q, %q", name, text, other)
		case strings.Count(text, "{host}") > 0 != (strings.Count(other, "{host}") > 0):
			t.Errorf("%s names the host in one language only: %q, %q", name, text, other)
		case text != "" && !hangul.MatchString(other) && !strings.HasPrefix(name, ".yesWords"):
			t.Errorf("%s is not Korean: %q", name, other)
		}
	}
	for name := range korean {
		if _, ok := english[name]; !ok && !strings.HasPrefix(name, ".yesWords") {
			t.Errorf("%s is in Korean alone", name)
		}
	}
}

// textsOf lists every string within a value, by its path.
func textsOf(v reflect.Value, path string) map[string]string {
	found := map[string]string{}
	add := func(v reflect.Value, path string) {
		for name, text := range textsOf(v, path) {
			found[name] = text
		}
	}
	switch v.Kind() {
	case reflect.String:
		found[path] = v.String()
	case reflect.Struct:
		for i := range v.NumField() {
			add(v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			add(v.Index(i), fmt.Sprintf("%s.%d", path, i))
		}
	}
	return found
}

// valuesOf returns the verbs of a format, in the order of its arguments.
func valuesOf(format string) []string {
	byPlace := map[int]string{}
	place := 0
	for _, m := range regexp.MustCompile(`%(?:\[(\d)\])?([.\d]*[a-z])`).FindAllStringSubmatch(format, -1) {
		place++
		if m[1] != "" {
			place = int(m[1][0] - '0')
		}
		byPlace[place] = m[2]
	}
	var list []string
	for i := 1; i <= len(byPlace); i++ {
		list = append(list, byPlace[i])
	}
	return list
}

func TestLanguageIsTheLocales(t *testing.T) {
	for _, c := range []struct{ all, messages, lang, want string }{
		{"", "", "", "en"},
		{"", "", "ko_KR.UTF-8", "ko"},
		{"", "", "ko", "ko"},
		{"", "", "kok_IN.UTF-8", "en"}, // Konkani
		{"C", "", "ko_KR.UTF-8", "en"},
		{"", "ko_KR@x", "en_US.UTF-8", "ko"},
		{"", "en_GB", "ko_KR.UTF-8", "en"},
		{"ko_KR.eucKR", "en_GB", "C", "ko"},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_MESSAGES", c.messages)
		t.Setenv("LANG", c.lang)
		if got := localeLang(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if text, err := textFor("ko"); err != nil || text != &koreanText {
			t.Errorf("--lang ko under %+v: %v", c, err)
		}
	}
}

func TestSimulateRefusesAWrongCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--scenario", "5"}, `"5" is none of 0 to 4`},
		{[]string{"--scenario", "two"}, "not all"},
		{[]string{"--moment", "later"}, "neither exit nor commit"},
		{[]string{"--length", "100ms"}, "not between 1s and 2m0s"},
		{[]string{"--within", "1s"}, "less than one attempt takes"},
		{[]string{"--lang", "de"}, "neither en nor ko"},
		{[]string{"worker_1"}, "takes no arguments"},
	} {
		d := startDaemon(t)
		gpuqctl(t, d, append([]string{"simulate"}, c.args...)...).want(t, exitUsage, "", c.says)
	}
}

// stage is a daemon that plays a rehearsal: what it knows of the job, and of its
// host.
type stage struct {
	*daemon
	mu    sync.Mutex
	armed []control.SimulateArgs
	reply control.SimulateReply
}

// newStage allows rehearsals at worker_1 and worker_2; worker_3 does not, and
// worker_4 is not live.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{daemon: startDaemon(t), reply: control.SimulateReply{Host: "worker_1", Daemon: "first", Pool: "simulate-worker_1", Ready: job.At(now)}}
	for i := range 4 {
		name := fmt.Sprintf("worker_%d", i+1)
		h := control.HostRow{Name: name, Live: i < 3, Pools: []string{"default"}, DevicesFree: 1, DevicesTotal: 2, Running: 1}
		if i != 2 {
			h.Pools = append(h.Pools, job.RehearsalPool(name))
		}
		s.hosts = append(s.hosts, h)
	}
	s.simulate = func(args control.SimulateArgs) (control.SimulateReply, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if args.Action != control.SimulateStatus {
			s.armed = append(s.armed, args)
		}
		return s.reply, nil
	}
	// The job succeeds at once, on the host that was chosen.
	s.onSubmit = func(row control.JobRow) control.JobRow {
		s.docs[row.ID] = playedJob(row.ID, "worker_1", job.Claimed, job.Running, job.Succeeded)
		return row
	}
	s.logs = func(a control.LogsArgs) (control.LogsReply, error) {
		text := witnessLines(a.ID, a.Attempt, control.WitnessStart, control.WitnessStep, control.WitnessEnd)
		return control.LogsReply{Attempt: a.Attempt, Data: text, NextOffset: int64(len(text)), End: true}, nil
	}
	return s
}

func playedJob(id job.ID, host string, states ...job.State) *job.Job {
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	j := job.New(id, "root", spec, job.At(now))
	for i, s := range states {
		if s == job.Claimed {
			j.Attempt++
		}
		j.State = s
		j.History = append(j.History, job.Change{State: s, At: job.At(now.Add(time.Duration(i+1) * time.Second)), Host: host})
	}
	return j
}

// witnessLines is what a payload writes, an event per second.
func witnessLines(id job.ID, attempt int, events ...string) []byte {
	var text []byte
	for i, e := range events {
		at := now.Add(time.Duration(10*attempt+i) * time.Second)
		line, err := json.Marshal(control.Witness{Event: e, Step: i, Job: id, Attempt: attempt, Machine: "vm", PID: 7, Time: job.At(at)})
		if err != nil {
			panic(err)
		}
		text = append(append(text, line...), '\n')
	}
	return text
}

func TestSimulateAsksForHostAndScenario(t *testing.T) {
	s := newStage(t)
	r := &run{in: strings.NewReader("worker_3\n3\n2\nthree\n0\nyes\n")}
	t.Setenv("LC_ALL", "C")
	r.exec(t.Context(), s.daemon, "simulate")
	r.want(t, 0, "Verdict: lost 0, doubled 0, nothing to recover from: GOOD", "  2) worker_2: 1 of 2 devices free, 1 attempts running")
	for _, says := range []string{`"worker_3" is not in the list`, `"3" is not in the list`, `"three" is not in the list`, "Go on? [y/N]"} {
		if !strings.Contains(r.err.String(), says) {
			t.Errorf("stderr lacks %q:\n%s", says, r.err.String())
		}
	}
	if strings.Contains(r.err.String(), "worker_4") {
		t.Errorf("a host that is not live is offered:\n%s", r.err.String())
	}
	if len(s.armed) != 2 || s.armed[0].Host != "worker_2" || s.armed[0].Action != control.SimulateArm || s.armed[1].Action != control.SimulateDisarm {
		t.Errorf("asked %+v", s.armed)
	}
	if len(s.specs) != 1 || s.specs[0].Pool != "simulate-worker_1" || s.specs[0].GPUs != 1 || s.specs[0].MaxAttempts != 1 {
		t.Errorf("submitted %+v", s.specs)
	}
}

func TestSimulateSpeaksKorean(t *testing.T) {
	s := newStage(t)
	r := &run{in: strings.NewReader("1\n0\n네\n")}
	t.Setenv("LC_ALL", "ko_KR.UTF-8")
	r.exec(t.Context(), s.daemon, "simulate")
	r.want(t, 0, "판정: 유실 0, 중복 0, 복구할 것이 없었음: 양호", "어느 호스트에서 할까요?")
}

// TestSimulateDoesNothingUnasked: no answer, or any but yes, arms and submits
// nothing.
func TestSimulateDoesNothingUnasked(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	for answers, code := range map[string]int{
		"1\n2\nno\n": exitInterrupted, "1\n2\n\n": exitInterrupted, "1\n2\n": exitUsage, "1\n": exitUsage, "": exitUsage,
	} {
		s := newStage(t)
		r := &run{in: strings.NewReader(answers)}
		r.exec(t.Context(), s.daemon, "simulate")
		if r.code != code || len(s.armed)+len(s.specs) > 0 {
			t.Errorf("%q: exit %d, want %d; armed %v, submitted %v\n%s", answers, r.code, code, s.armed, s.specs, r.err.String())
		}
	}
}

func TestSimulateSaysTheWayOut(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	s := newStage(t)
	s.hosts = s.hosts[2:]
	gpuqctl(t, s.daemon, "simulate").want(t, exitConflict, "", "set allowed = true below [simulate]")
	refusal := control.Errorf(control.CodeForbidden, "ask one", "only operators may rehearse faults")
	s.simulate = func(control.SimulateArgs) (control.SimulateReply, error) { return control.SimulateReply{}, refusal }
	gpuqctl(t, s.daemon, "simulate", "--host", "worker_1", "--scenario", "2", "--yes").want(t, exitForbidden, "", "only operators may rehearse faults: ask one")
	if len(s.specs) > 0 {
		t.Errorf("submitted %v", s.specs)
	}
}

// TestSimulateIsForProgramsToo: one object per rehearsal on stdout, and the story
// beside it.
func TestSimulateIsForProgramsToo(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	s := newStage(t)
	r := gpuqctl(t, s.daemon, "simulate", "--host", "worker_1", "--scenario", "0", "--yes", "--json")
	r.want(t, 0, `"good":true`, "the work is done")
	var v simulateVerdict
	if err := json.Unmarshal([]byte(r.out.String()), &v); err != nil {
		t.Fatalf("%q: %v", r.out.String(), err)
	}
	if v.Starts != 1 || v.Ends != 1 || v.Commits != 1 || v.State != job.Succeeded || v.LastHost != "worker_1" || len(v.Witness) != 3 || v.Problems == nil {
		t.Errorf("got %+v", v)
	}
}

// TestInterruptedRehearsalLeavesNothingArmedAndNoJob.
func TestInterruptedRehearsalLeavesNothingArmedAndNoJob(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	s := newStage(t)
	ctx, interrupt := withCause(t)
	s.onSubmit = func(row control.JobRow) control.JobRow {
		s.docs[row.ID] = playedJob(row.ID, "worker_1", job.Claimed, job.Running)
		return row
	}
	s.logs = func(control.LogsArgs) (control.LogsReply, error) {
		interrupt()
		return control.LogsReply{}, nil
	}
	r := new(run).exec(ctx, s.daemon, "simulate", "--host", "worker_1", "--scenario", "2", "--yes")
	r.want(t, exitInterrupted, anything, "the fault is disarmed")
	if n := len(s.armed); n != 2 || s.armed[1].Action != control.SimulateDisarm {
		t.Errorf("asked %+v", s.armed)
	}
	if len(s.kills) != 1 || s.kills[0].ID != s.armed[0].Job {
		t.Errorf("killed %v", s.kills)
	}
}

// TestPayloadWitnessesWhatItDoes: with the real shell; each line is in its file,
// too.
func TestPayloadWitnessesWhatItDoes(t *testing.T) {
	for _, c := range []struct {
		scenario control.Scenario
		attempt  string
		code     int
		events   []string
	}{
		{control.ScenarioMidJob, "1", 0, []string{"start", "step", "step", "end"}},
		{control.ScenarioError, "1", 1, []string{"start", "fail"}},
		{control.ScenarioError, "2", 0, []string{"start", "step", "step", "end"}},
	} {
		spec := rehearsalSpec("worker_1", "simulate-worker_1", c.scenario, 1, time.Second, time.Minute)
		if err := spec.Validate(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		cmd := exec.Command(spec.Command[0], spec.Command[1:]...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GPUQ_WORKDIR=" + dir, "GPUQ_JOB_ID=" + string(idA), "GPUQ_ATTEMPT=" + c.attempt, "CUDA_VISIBLE_DEVICES=GPU-1"}
		out, err := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != c.code {
			t.Errorf("scenario %d, attempt %s: exit code %d (%v)", c.scenario, c.attempt, code, err)
		}
		file, err := os.ReadFile(filepath.Join(dir, "witness.jsonl"))
		if err != nil || string(file) != string(out) {
			t.Errorf("the file has\n%s(%v)the output\n%s", file, err, out)
		}
		var events []string
		for _, w := range control.ReadWitness(out) {
			events = append(events, w.Event)
			if w.Job != idA || fmt.Sprint(w.Attempt) != c.attempt || w.PID != cmd.Process.Pid || w.Devices != "GPU-1" || w.Machine == "" || time.Since(w.Time.Time) > time.Hour {
				t.Errorf("line of the witness: %+v", w)
			}
		}
		if !slices.Equal(events, c.events) {
			t.Errorf("scenario %d, attempt %s: %q, want %q", c.scenario, c.attempt, events, c.events)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

var uuidLine = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[57][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\n$`)

func TestSubmitPrintsTheIDAlone(t *testing.T) {
	d := startDaemon(t)
	r := gpuqctl(t, d, "submit", "--", "true")
	if r.code != 0 || !uuidLine.MatchString(r.out.String()) || r.err.String() != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.out.String(), r.err.String())
	}
}

func TestSubmitFlagsMakeTheSpec(t *testing.T) {
	d := startDaemon(t)
	gpuqctl(t, d, "submit", "--gpus", "1", "--name", "n", "--priority", "high", "--pool", "large", "--time-limit", "90m", "--grace", "20s",
		"--max-attempts", "3", "--retry-on", "75,111", "--backoff", "2s,1m", "--key", "k", "--env", "A=1", "--env", "B=x=y", "--workdir", "/data",
		"--expires", "2h", "--label", "sweep=7", "--memory", "1.5GiB", "--tasks", "64", "--cpu-weight", "50",
		"--gpu-memory", "12GiB", "--gpu-model", "h100", "--min-gpu-memory", "80GiB", "--min-compute-capability", "9.0", "--", "python", "train.py", "--gpus", "8")
	gpuqctl(t, d, "submit", "--gpus", "4", "echo", "--json", "-f", "x") // flags behind the command are the command's
	want := job.Spec{
		Command: []string{"python", "train.py", "--gpus", "8"}, Name: "n", Pool: "large", Priority: job.High, GPUs: 1, Workdir: "/data",
		Env: map[string]string{"A": "1", "B": "x=y"}, TimeLimit: job.Duration(90 * time.Minute), Grace: job.Duration(20 * time.Second),
		MaxAttempts: 3, RetryOn: []int{75, 111}, Backoff: []job.Duration{job.Duration(2 * time.Second), job.Duration(time.Minute)},
		Key: "k", Expires: job.Duration(2 * time.Hour), Labels: map[string]string{"sweep": "7"},
		MemoryMax: 3 << 29, TasksMax: 64, CPUWeight: 50,
		GPUMemory: 12 << 30, GPUModel: "h100", MinGPUMemory: 80 << 30, MinComputeCapability: "9.0",
	}
	plain := job.DefaultSpec()
	plain.Command, plain.GPUs = []string{"echo", "--json", "-f", "x"}, 4
	if !reflect.DeepEqual(d.specs, []job.Spec{want, plain}) {
		t.Errorf("got  %+v\nwant %+v", d.specs, []job.Spec{want, plain})
	}
	// Every field of a spec can be set by a flag: a new one needs a flag too.
	v := reflect.ValueOf(want)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the flags do not set %s", v.Type().Field(i).Name)
		}
	}
}

func TestSubmitRefusesWhatIsWrongBeforeItAsks(t *testing.T) {
	d := startDaemon(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"NoCommand":        {nil, "there is no command"},
		"UnknownFlag":      {[]string{"--gpu", "1"}, "unknown flag: --gpu: see gpuqctl submit --help"},
		"BadNumber":        {[]string{"--gpus", "two", "--", "x"}, `invalid argument "two"`},
		"ManyThings":       {[]string{"--gpus", "-1", "--priority", "urgent", "--", "x"}, "gpuqctl: gpus: -1 is not between 0 and 64\n"},
		"TheSecondOfThem":  {[]string{"--priority", "urgent", "--gpus", "-1", "--", "x"}, `priority: "urgent" is none of`},
		"BadCode":          {[]string{"--retry-on", "75,x", "--", "x"}, `"x" is no exit code`},
		"LessThanAByte":    {[]string{"--memory", "0.5B", "--", "x"}, `memory: "0.5B" is no size`},
		"BadSize":          {[]string{"--memory", "16G", "--", "x"}, `memory: "16G" is no size`},
		"SmallSize":        {[]string{"--memory", "1MiB", "--", "x"}, "memory_max: 1048576 bytes are not between"},
		"ShareOfTwo":       {[]string{"--gpus", "2", "--gpu-memory", "1GiB", "--", "x"}, "gpu_memory: it is a part of one device, and gpus is 2: want gpus = 1"},
		"ShareWithoutUnit": {[]string{"--gpu-memory", "12", "--", "x"}, `gpu-memory: "12" is no size`},
		"BadCapability":    {[]string{"--min-compute-capability", "sm_80", "--", "x"}, `min_compute_capability: "sm_80" is no compute capability`},
		"BadBackoff":       {[]string{"--backoff", "5", "--", "x"}, "want a number with its unit"},
		"BadEnv":           {[]string{"--env", "A", "--", "x"}, "want NAME=VALUE"},
		"EnvTwice":         {[]string{"--env", "A=1", "--env", "A=2", "--", "x"}, "A is given twice"},
		"ReservedEnv":      {[]string{"--env", "GPUQ_JOB_ID=1", "--", "x"}, "is set by gpuqd"},
		"FileAndCommand":   {[]string{"-f", "x", "--", "y"}, "a command and -f do not go together"},
		"FileAndFlag":      {[]string{"-f", "x", "--max-attempts", "2"}, "write max_attempts into the specs"},
		"NoFile":           {[]string{"-f", "/nonexistent/x"}, "nothing was submitted: open /nonexistent/x"},
	} {
		t.Run(name, func(t *testing.T) {
			gpuqctl(t, d, append([]string{"submit"}, c.args...)...).want(t, exitUsage, "", c.want)
		})
	}
	if len(d.specs) != 0 {
		t.Errorf("submitted %+v", d.specs)
	}
}

func TestSubmitAgain(t *testing.T) {
	d := startDaemon(t)
	first := gpuqctl(t, d, "submit", "--key", "nightly", "--", "true")
	second := gpuqctl(t, d, "submit", "--key", "nightly", "--", "true")
	second.want(t, 0, first.out.String(), "had been submitted before and is queued")
	if len(d.specs) != 1 {
		t.Errorf("%d jobs", len(d.specs))
	}
	r := gpuqctl(t, d, "submit", "--json", "--key", "nightly", "--", "true")
	var reply control.SubmitReply
	if err := json.Unmarshal([]byte(r.out.String()), &reply); err != nil || reply.Created || string(reply.ID)+"\n" != first.out.String() {
		t.Errorf("%q: %+v, %v", r.out.String(), reply, err)
	}
}

func TestExitCodes(t *testing.T) {
	d := startDaemon(t)
	d.logs = func(control.LogsArgs) (control.LogsReply, error) { return control.LogsReply{}, nil }
	verbs := [][]string{
		{"submit", "--", "true"},
		{"list"},
		{"show", string(idA)},
		{"logs", string(idA)},
		{"kill", string(idA)},
		{"hosts"},
		{"devices"},
		{"version"},
		{"why", string(idA)},
		{"hold", string(idA)},
		{"release", string(idA)},
		{"logs", "-f", "--attempt", "1", string(idA)},
		{"drain", "gpu1", "--reason", "x"},
		{"drain", "gpu1", "--wait"},
		{"resume", "gpu1"},
		{"events"},
		{"list", "--json"},
		{"hosts", "--json"},
		{"dead", "list"},
		{"dead", "show", "5f2a9c01"},
		{"dead", "requeue", "5f2a9c01"},
		{"dead", "purge", "5f2a9c01", "--yes"},
		{"dead", "purge", "--older-than", "1d", "--yes"},
	}
	for code, want := range map[control.Code]int{
		control.CodeBadRequest: 2, control.CodeNotFound: 4, control.CodeForbidden: 5, control.CodeConflict: 6,
		control.CodeUnavailable: 3, control.CodeNoHost: 3, control.CodeInternal: 1, "of_a_newer_daemon": 1,
	} {
		d.err = control.Errorf(code, "do this", "it is so")
		for _, args := range verbs {
			t.Run(string(code)+"/"+strings.Join(args, " "), func(t *testing.T) {
				if args[0] == "logs" && args[1] == "-f" && want == exitUnavailable {
					t.Skip("it goes on trying: see TestLogs")
				}
				gpuqctl(t, d, args...).want(t, want, map[bool]string{true: "gpuqctl "}[args[0] == "version"], "it is so: do this\n")
			})
		}
		for _, args := range [][]string{{"wait", string(idA)}, {"submit", "--wait", "--", "true"}} {
			t.Run(string(code)+"/"+strings.Join(args[:2], ""), func(t *testing.T) {
				if code == control.CodeUnavailable && args[0] == "wait" {
					t.Skip("it goes on waiting: see TestWaitOutlastsADaemon")
				}
				want := exitNoOutcome
				if code == control.CodeBadRequest {
					want = exitUsage
				}
				gpuqctl(t, d, args...).want(t, want, "", "it is so: do this\n")
			})
		}
	}
	t.Run("UnknownOutcome", func(t *testing.T) {
		d.err = control.Errorf(control.CodeUnknownOutcome, "", "the ledger is gone")
		gpuqctl(t, d, "submit", "--", "true").want(t, exitUnknown, "", "is not known")
		gpuqctl(t, d, "kill", string(idA)).want(t, exitUnknown, "", "a second kill does no harm")
		for _, args := range [][]string{
			{"hold", string(idA)},
			{"release", string(idA)},
			{"drain", "gpu1", "--reason", "x"},
			{"resume", "gpu1"},
			{"dead", "requeue", "5f2a9c01"},
			{"dead", "purge", "5f2a9c01", "--yes"},
		} {
			gpuqctl(t, d, args...).want(t, exitUnknown, "", "is not known (")
			gpuqctl(t, d, args...).want(t, exitUnknown, "", "ask for it again: a second time does no harm")
		}
		gpuqctl(t, d, "submit", "--wait", "--", "true").want(t, exitNoOutcome, "", "is not known")
	})
	for name, args := range map[string][]string{
		"NoVerb": {"explode"}, "MisspeltVerb": {"lst"}, "BadFlag": {"list", "--explode"}, "BadState": {"list", "--state", "done"},
		"BadLimit": {"list", "--limit", "0"}, "BadSince": {"list", "--since", "-1h"}, "Superfluous": {"hosts", "gpu1"},
		"NoID": {"show"}, "TwoIDs": {"logs", string(idA), string(idB)}, "BadID": {"wait", "1234"}, "NoIDs": {"kill"}, "BadAttempt": {"logs", "--attempt", "-1", string(idA)},
		"HoldNothing": {"hold"}, "ReleaseNoID": {"release", "1234"}, "WhyNothing": {"why"}, "ResumeNothing": {"resume"}, "NoDeadVerb": {"dead", "lst"},
		"DeadListSuperfluous": {"dead", "list", "x"}, "DeadShowNothing": {"dead", "show"}, "DeadRequeueNothing": {"dead", "requeue"}, "EventsLimit": {"events", "--limit", "-1"},
		"EventsSince": {"events", "--since", "soon"}, "ShortDeadID": {"dead", "show", "5f2a"}, "NoShell": {"completion"}, "OtherShell": {"completion", "tcsh"},
		"NoConfigVerb": {"config", "chck"}, "BadColour": {"--color", "maybe", "list"}, "NoSuchConfig": {"config", "check", "/nonexistent/gpuqd.toml"},
	} {
		t.Run(name, func(t *testing.T) {
			r := gpuqctl(t, d, args...)
			if r.code != exitUsage || r.out.String() != "" && args[0] != "config" || r.err.String() == "" {
				t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.out.String(), r.err.String())
			}
		})
	}
	t.Run("NoConfiguration", func(t *testing.T) {
		gpuqctl(t, nil, "--config", "/nonexistent/gpuqctl.toml", "list").want(t, exitFailure, "", "/nonexistent/gpuqctl.toml")
	})
	t.Run("NobodyThere", func(t *testing.T) {
		gpuqctl(t, nil, "--socket", "/nonexistent/s", "list").want(t, exitUnavailable, "", "no daemon answered (/nonexistent/s: ")
		gpuqctl(t, nil, "--socket", "/nonexistent/s", "version").want(t, exitUnavailable, "gpuqctl  ", "no daemon answered")
		gpuqctl(t, nil, "--socket", "/nonexistent/s", "--timeout", "150ms", "submit", "--", "x").want(t, exitUnavailable, "", "trying again for up to 150ms")
	})
	t.Run("AllAreDocumented", func(t *testing.T) {
		help := exitCodesHelp() + waitCodesHelp()
		for _, code := range []int{exitOK, exitFailure, exitUsage, exitUnavailable, exitNotFound, exitForbidden, exitConflict, exitUnknown, exitInterrupted, exitDead, exitKilled, exitLost, exitTimeLimit, exitNoOutcome} {
			if !strings.Contains(help, fmt.Sprintf(" %d  ", code)) {
				t.Errorf("%d is not in the help", code)
			}
		}
	})
}

func specFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "specs")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadSpecs(t *testing.T) {
	spec := func(change func(*job.Spec)) job.Spec {
		s := job.DefaultSpec()
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		text string
		want []placedSpec
		err  string // what is wrong, if anything
	}{
		"JSONLines": {
			"{\"command\":[\"a\"]}\n\n  {\"command\":[\"b\"],\"gpus\":0,\"grace\":\"1m\"}",
			[]placedSpec{
				{"line 1", spec(func(s *job.Spec) { s.Command = []string{"a"} })},
				{"line 3", spec(func(s *job.Spec) { s.Command = []string{"b"}; s.GPUs = 0; s.Grace = job.Duration(time.Minute) })},
			},
			"",
		},
		"Tables": {
			"# sweep\n[b]\ncommand = [\"x\"]\nenv = {A = \"1\"}\n[a]\nname = \"own\"\ncommand = [\"y\"]\n[a.labels]\nsweep = \"7\"\n",
			[]placedSpec{
				{"[b]", spec(func(s *job.Spec) { s.Command = []string{"x"}; s.Name = "b"; s.Env = map[string]string{"A": "1"} })},
				{"[a]", spec(func(s *job.Spec) {
					s.Command = []string{"y"}
					s.Name = "own"
					s.Labels = map[string]string{"sweep": "7"}
				})},
			},
			"",
		},
		"ArrayOfTables": {
			"[[job]]\ncommand = [\"x\"]\nbackoff = [\"1s\"]\n[[job]]\ncommand = [\"y\"]\n[job.env]\nB = \"2\"\n",
			[]placedSpec{
				{"[[job]] number 1", spec(func(s *job.Spec) { s.Command = []string{"x"}; s.Backoff = []job.Duration{job.Duration(time.Second)} })},
				{"[[job]] number 2", spec(func(s *job.Spec) { s.Command = []string{"y"}; s.Env = map[string]string{"B": "2"} })},
			},
			"",
		},
		"WholeFile": {
			"command = [\"x\"]\nkey = \"k\"\n[env]\nA = \"1\"\n",
			[]placedSpec{{"the spec", spec(func(s *job.Spec) { s.Command = []string{"x"}; s.Key = "k"; s.Env = map[string]string{"A": "1"} })}},
			"",
		},
		"Empty":             {"\n# nothing\n", nil, "it has no spec"},
		"NeitherNor":        {"hello world", nil, "neither JSON lines nor TOML: line 1"},
		"MisspeltJSON":      {`{"command":["a"],"gpu":1}`, nil, `line 1: not a spec: json: unknown field "gpu"`},
		"TwoOnALine":        {`{"command":["a"]} {"command":["b"]}`, nil, "line 1: something follows"},
		"ObjectOverLines":   {"{\n\"command\":[\"a\"]}", nil, "line 1: not a spec"},
		"MisspeltTOML":      {"[a]\ncommand = [\"x\"]\ngpu = 1\n", nil, "a.gpu: there is no such key in a spec"},
		"MisspeltInArray":   {"[[job]]\ncommand = [\"x\"]\ngpu = 1\n", nil, "job.gpu: there is no such key in a spec"},
		"MisspeltAlone":     {"command = [\"x\"]\ngpu = 1\n", nil, "gpu: there is no such key in a spec"},
		"KeyOutsideOfTable": {"gpus = 2\n[a]\ncommand = [\"x\"]\n", nil, "gpus stands outside of a table"},
		"WrongType":         {"[a]\ncommand = \"x\"\n", nil, "[a]: "},
		"BareDuration":      {"[a]\ncommand = [\"x\"]\ngrace = 10\n", nil, "[a]: "},
		"EverythingAtOnce":  {"{\"command\":[]}\n{\"command\":[\"x\"],\"gpus\":99}\nnonsense\n", nil, "line 3: not a spec"},
		"InvalidWithPlace":  {"{\"command\":[]}\n{\"command\":[\"x\"],\"gpus\":99}\nnonsense\n", nil, "line 1: command: it is empty"},
		"EachLineHasAPlace": {"[a]\ncommand = [\"x\"]\ngpus = 99\nmax_attempts = 0\n", nil, "[a]: gpus: 99 is not between 0 and 64\n[a]: max_attempts"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readSpecs(strings.NewReader(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestSubmitFile(t *testing.T) {
	lines := func(n int, more string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "{\"command\":[\"c%d\"],\"name\":\"n%d\"%s}\n", i, i, strings.ReplaceAll(more, "N", fmt.Sprint(i)))
		}
		return b.String()
	}
	t.Run("PrintsIDsInTheOrderOfTheFile", func(t *testing.T) {
		d := startDaemon(t)
		r := gpuqctl(t, d, "submit", "-f", specFile(t, lines(200, "")))
		ids := strings.Fields(r.out.String())
		if r.code != 0 || len(ids) != 200 || !strings.Contains(r.err.String(), "200 of 200 jobs confirmed") {
			t.Fatalf("exit %d, %d IDs, stderr %q", r.code, len(ids), r.err.String())
		}
		for i, id := range ids {
			if name := d.jobs[job.ID(id)].Name; name != fmt.Sprintf("n%d", i) {
				t.Fatalf("line %d is the ID of %q", i, name)
			}
		}
		if d.peak > submitsAtOnce {
			t.Errorf("%d submissions at once", d.peak)
		}
	})
	t.Run("ReadsStdin", func(t *testing.T) {
		d := startDaemon(t)
		r := (&run{in: strings.NewReader("[a]\ncommand = [\"x\"]\n")}).exec(t.Context(), d, "submit", "-f", "-")
		if r.code != 0 || !uuidLine.MatchString(r.out.String()) || d.specs[0].Name != "a" {
			t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.out.String(), r.err.String())
		}
	})
	t.Run("SubmitsNothingWhereOneIsWrong", func(t *testing.T) {
		d := startDaemon(t)
		gpuqctl(t, d, "submit", "-f", specFile(t, lines(5, "")+`{"command":[]}`)).want(t, exitUsage, "", "nothing was submitted: line 6: command: it is empty")
		if len(d.specs) != 0 {
			t.Errorf("%d jobs", len(d.specs))
		}
	})
	t.Run("SaysWhichAreNotConfirmed", func(t *testing.T) {
		d := startDaemon(t)
		d.refuse = func(s job.Spec) error {
			if s.Name == "n1" || s.Name == "n3" {
				return control.Errorf(control.CodeConflict, "", "refused")
			}
			return nil
		}
		path := specFile(t, lines(5, ""))
		r := gpuqctl(t, d, "submit", "-f", path)
		r.want(t, exitConflict, anything, "3 of 5 jobs confirmed; not: line 2, line 4\n")
		r.want(t, exitConflict, anything, "gpuqctl: line 2: refused\n")
		r.want(t, exitConflict, anything, "no key and may run twice: line 1, line 3, line 5\n")
		if ids := strings.Fields(r.out.String()); len(ids) != 3 || d.jobs[job.ID(ids[1])].Name != "n2" {
			t.Errorf("stdout %q", r.out.String())
		}
		r = gpuqctl(t, d, "submit", "--wait", "-f", path)
		r.want(t, exitNoOutcome, anything, "3 of 5 jobs confirmed")
	})
	t.Run("WithKeysCanBeRepeated", func(t *testing.T) {
		d := startDaemon(t)
		down := true
		d.refuse = func(s job.Spec) error {
			if s.Name == "n2" && down {
				return control.Errorf(control.CodeForbidden, "", "not yet")
			}
			return nil
		}
		path := specFile(t, lines(4, `,"key":"kN"`))
		first := gpuqctl(t, d, "submit", "-f", path)
		first.want(t, exitForbidden, anything, "submit the file again: what is confirmed has a key")
		down = false
		second := gpuqctl(t, d, "submit", "-f", path)
		second.want(t, 0, anything, "4 of 4 jobs confirmed")
		all := strings.Fields(second.out.String())
		if len(all) != 4 || len(d.jobs) != 4 || strings.Join(append(all[:2:2], all[3]), " ") != strings.Join(strings.Fields(first.out.String()), " ") {
			t.Errorf("first %q, second %q, %d jobs", first.out.String(), second.out.String(), len(d.jobs))
		}
	})
	t.Run("UnknownWithoutAKeyIsNotToBeRepeated", func(t *testing.T) {
		d := startDaemon(t)
		d.refuse = func(s job.Spec) error {
			if s.Name == "n1" {
				return control.Errorf(control.CodeUnknownOutcome, "", "the ledger is gone")
			}
			return nil
		}
		r := gpuqctl(t, d, "submit", "-f", specFile(t, lines(2, "")))
		r.want(t, exitUnknown, anything, "may run twice: line 1, line 2\n")
	})
	t.Run("WaitsForAll", func(t *testing.T) {
		d := startDaemon(t)
		d.onSubmit = func(row control.JobRow) control.JobRow {
			row.State = job.Succeeded
			if row.Name == "n1" {
				row.State, row.Class, row.ExitCode = job.Failed, job.ClassUser, exitCodeOf(9)
			}
			return row
		}
		r := gpuqctl(t, d, "submit", "--wait", "-f", specFile(t, lines(3, "")))
		if r.code != 9 || len(strings.Fields(r.out.String())) != 3 {
			t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.out.String(), r.err.String())
		}
	})
	t.Run("InterruptedSaysWhatIsIn", func(t *testing.T) {
		d := startDaemon(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		d.onSubmit = func(row control.JobRow) control.JobRow {
			if row.Name == "n40" {
				cancel(errors.New("interrupt"))
			}
			return row
		}
		r := new(run).exec(ctx, d, "submit", "-f", specFile(t, lines(2000, "")))
		ids := strings.Fields(r.out.String())
		if r.code != exitInterrupted || len(ids) != len(d.jobs) || len(ids) == 2000 || !strings.Contains(r.err.String(), fmt.Sprintf("%d of 2000 jobs confirmed; not: ", len(ids))) {
			t.Errorf("exit %d, %d IDs for %d jobs, stderr %q", r.code, len(ids), len(d.jobs), r.err.String())
		}
	})
}

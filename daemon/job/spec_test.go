package job

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func validSpec() Spec {
	s := DefaultSpec()
	s.Command = []string{"train"}
	return s
}

func TestDefaultSpecLacksItsCommandOnly(t *testing.T) {
	err := DefaultSpec().Validate()
	if err == nil || !strings.HasPrefix(err.Error(), "command: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the default spec: %v", err)
	}
	if err := validSpec().Validate(); err != nil {
		t.Errorf("the default spec with a command: %v", err)
	}
}

func TestDefaultSpecsShareNothing(t *testing.T) {
	a := DefaultSpec()
	a.Backoff[0] = 0
	if DefaultSpec().Backoff[0] == 0 {
		t.Error("a change to one default spec shows in the next")
	}
}

// TestSpecBounds goes to both sides of every bound. A bad spec is refused for
// exactly one reason, which names the field first.
func TestSpecBounds(t *testing.T) {
	for _, c := range []struct {
		field string // "" when the spec is good
		what  string
		set   func(*Spec)
	}{
		{"", "most arguments", func(s *Spec) { s.Command = rows(argsMax) }},
		{"command", "no arguments", func(s *Spec) { s.Command = nil }},
		{"command", "no program", func(s *Spec) { s.Command = []string{"", "x"} }},
		{"", "an empty argument", func(s *Spec) { s.Command = []string{"x", ""} }},
		{"command", "too many arguments", func(s *Spec) { s.Command = rows(argsMax + 1) }},
		{"command", "zero byte", func(s *Spec) { s.Command = []string{"x", "a\x00b"} }},
		{"command", "not UTF-8", func(s *Spec) { s.Command = []string{"x", "\xff"} }},

		{"", "longest name", func(s *Spec) { s.Name = strings.Repeat("n", nameBytesMax) }},
		{"name", "long name", func(s *Spec) { s.Name = strings.Repeat("n", nameBytesMax+1) }},
		{"name", "name with a newline", func(s *Spec) { s.Name = "a\nb" }},
		{"name", "name with an escape", func(s *Spec) { s.Name = "a\x1b[2J" }},
		{"name", "name not UTF-8", func(s *Spec) { s.Name = "\xc3" }},
		{"", "name in other letters", func(s *Spec) { s.Name = "Größe 模型" }},

		{"", "shortest pool", func(s *Spec) { s.Pool = "a" }},
		{"", "longest pool", func(s *Spec) { s.Pool = strings.Repeat("p", 32) }},
		{"pool", "no pool", func(s *Spec) { s.Pool = "" }},
		{"pool", "long pool", func(s *Spec) { s.Pool = strings.Repeat("p", 33) }},
		{"pool", "pool with a dot", func(s *Spec) { s.Pool = "a.b" }},
		{"pool", "pool in capitals", func(s *Spec) { s.Pool = "Train" }},
		{"pool", "pool with a newline", func(s *Spec) { s.Pool = "train\n" }},
		{"pool", "pool that ends in -", func(s *Spec) { s.Pool = "train-" }},

		{"", "high", func(s *Spec) { s.Priority = High }},
		{"", "low", func(s *Spec) { s.Priority = Low }},
		{"priority", "unknown priority", func(s *Spec) { s.Priority = "urgent" }},
		{"priority", "no priority", func(s *Spec) { s.Priority = "" }},

		{"", "no GPU", func(s *Spec) { s.GPUs = 0 }},
		{"", "most GPUs", func(s *Spec) { s.GPUs = gpusMax }},
		{"gpus", "negative GPUs", func(s *Spec) { s.GPUs = -1 }},
		{"gpus", "too many GPUs", func(s *Spec) { s.GPUs = gpusMax + 1 }},

		{"", "workdir", func(s *Spec) { s.Workdir = "/data" }},
		{"workdir", "relative workdir", func(s *Spec) { s.Workdir = "data" }},
		{"workdir", "workdir with a zero byte", func(s *Spec) { s.Workdir = "/a\x00" }},

		{"", "variable", func(s *Spec) { s.Env = map[string]string{"_a1": "any\ttext\n"} }},
		{"", "longest variable name", func(s *Spec) { s.Env = map[string]string{strings.Repeat("A", 128): ""} }},
		{"env", "long variable name", func(s *Spec) { s.Env = map[string]string{strings.Repeat("A", 129): ""} }},
		{"env", "no variable name", func(s *Spec) { s.Env = map[string]string{"": "x"} }},
		{"env", "name with =", func(s *Spec) { s.Env = map[string]string{"A=B": "x"} }},
		{"env", "name from a digit", func(s *Spec) { s.Env = map[string]string{"1A": "x"} }},
		{"env", "reserved GPUQ_", func(s *Spec) { s.Env = map[string]string{"GPUQ_JOB_ID": "x"} }},
		{"env", "reserved devices", func(s *Spec) { s.Env = map[string]string{"CUDA_VISIBLE_DEVICES": "0"} }},
		{"env", "reserved order", func(s *Spec) { s.Env = map[string]string{"CUDA_DEVICE_ORDER": "FASTEST_FIRST"} }},
		{"env", "value with a zero byte", func(s *Spec) { s.Env = map[string]string{"A": "\x00"} }},
		{"env", "value not UTF-8", func(s *Spec) { s.Env = map[string]string{"A": "\xff"} }},

		{"", "longest time limit", func(s *Spec) { s.TimeLimit = Duration(timeLimitMax) }},
		{"time_limit", "negative time limit", func(s *Spec) { s.TimeLimit = -1 }},
		{"time_limit", "long time limit", func(s *Spec) { s.TimeLimit = Duration(timeLimitMax + 1) }},
		{"", "no grace", func(s *Spec) { s.Grace = 0 }},
		{"", "longest grace", func(s *Spec) { s.Grace = Duration(graceMax) }},
		{"grace", "negative grace", func(s *Spec) { s.Grace = -1 }},
		{"grace", "long grace", func(s *Spec) { s.Grace = Duration(graceMax + 1) }},
		{"", "longest expiry", func(s *Spec) { s.Expires = Duration(timeLimitMax) }},
		{"expires", "negative expiry", func(s *Spec) { s.Expires = -1 }},
		{"expires", "long expiry", func(s *Spec) { s.Expires = Duration(timeLimitMax + 1) }},

		{"", "least memory", func(s *Spec) { s.MemoryMax = memoryLeast }},
		{"", "most memory", func(s *Spec) { s.MemoryMax = memoryMax }},
		{"memory_max", "little memory", func(s *Spec) { s.MemoryMax = memoryLeast - 1 }},
		{"memory_max", "much memory", func(s *Spec) { s.MemoryMax = memoryMax + 1 }},
		{"memory_max", "negative memory", func(s *Spec) { s.MemoryMax = -1 }},
		{"gpu_memory", "a part of two devices", func(s *Spec) { s.GPUMemory, s.GPUs = 12<<30, 2 }},
		{"gpu_memory", "a part of no device", func(s *Spec) { s.GPUMemory, s.GPUs = 12<<30, 0 }},
		{"gpu_memory", "a negative part", func(s *Spec) { s.GPUMemory = -1 }},
		{"gpu_memory", "a part of nothing's size", func(s *Spec) { s.GPUMemory = gpuMemoryLeast - 1 }},
		{"min_gpu_memory", "a device of no card's size", func(s *Spec) { s.MinGPUMemory = gpuMemoryMax + 1 }},
		{"gpu_model", "no word", func(s *Spec) { s.GPUModel = "--" }},
		{"gpu_model", "a long model", func(s *Spec) { s.GPUModel = strings.Repeat("x", modelBytesMax+1) }},
		{"min_compute_capability", "a major version alone", func(s *Spec) { s.MinComputeCapability = "8" }},
		{"min_compute_capability", "another form", func(s *Spec) { s.MinComputeCapability = "08.0" }},
		{"min_compute_capability", "sm_80", func(s *Spec) { s.MinComputeCapability = "sm_80" }},
		{"gpus", "no device of a model", func(s *Spec) { s.GPUs, s.GPUModel = 0, "h100" }},
		{"", "most tasks", func(s *Spec) { s.TasksMax = tasksMax }},
		{"tasks_max", "many tasks", func(s *Spec) { s.TasksMax = tasksMax + 1 }},
		{"tasks_max", "negative tasks", func(s *Spec) { s.TasksMax = -1 }},
		{"", "most weight", func(s *Spec) { s.CPUWeight = cpuWeightMax }},
		{"cpu_weight", "much weight", func(s *Spec) { s.CPUWeight = cpuWeightMax + 1 }},
		{"cpu_weight", "negative weight", func(s *Spec) { s.CPUWeight = -1 }},

		{"", "most attempts", func(s *Spec) { s.MaxAttempts = attemptsMax }},
		{"max_attempts", "no attempt", func(s *Spec) { s.MaxAttempts = 0 }},
		{"max_attempts", "too many attempts", func(s *Spec) { s.MaxAttempts = attemptsMax + 1 }},
		{"", "codes", func(s *Spec) { s.RetryOn = []int{1, 255} }},
		{"retry_on", "code of success", func(s *Spec) { s.RetryOn = []int{0} }},
		{"retry_on", "code past a byte", func(s *Spec) { s.RetryOn = []int{256} }},

		{"", "most steps", func(s *Spec) { s.Backoff = make([]Duration, backoffMax) }},
		{"backoff", "no step", func(s *Spec) { s.Backoff = nil }},
		{"backoff", "too many steps", func(s *Spec) { s.Backoff = make([]Duration, backoffMax+1) }},
		{"", "longest step", func(s *Spec) { s.Backoff = []Duration{Duration(backoffStepMax)} }},
		{"backoff", "negative step", func(s *Spec) { s.Backoff = []Duration{-1} }},
		{"backoff", "long step", func(s *Spec) { s.Backoff = []Duration{Duration(backoffStepMax + 1)} }},

		{"", "longest key", func(s *Spec) { s.Key = strings.Repeat("k", keyBytesMax) }},
		{"key", "long key", func(s *Spec) { s.Key = strings.Repeat("k", keyBytesMax+1) }},
		{"key", "key with a zero byte", func(s *Spec) { s.Key = "\x00" }},

		{"", "most labels", func(s *Spec) { s.Labels = manyLabels(labelsMax) }},
		{"labels", "too many labels", func(s *Spec) { s.Labels = manyLabels(labelsMax + 1) }},
		{"", "longest label", func(s *Spec) {
			s.Labels = map[string]string{strings.Repeat("l", 63): strings.Repeat("v", labelBytesMax)}
		}},
		{"labels", "long label name", func(s *Spec) { s.Labels = map[string]string{strings.Repeat("l", 64): ""} }},
		{"labels", "label name with a space", func(s *Spec) { s.Labels = map[string]string{"a b": ""} }},
		{"labels", "no label name", func(s *Spec) { s.Labels = map[string]string{"": "x"} }},
		{"labels", "long label value", func(s *Spec) { s.Labels = map[string]string{"l": strings.Repeat("v", labelBytesMax+1)} }},
		{"labels", "label value with a newline", func(s *Spec) { s.Labels = map[string]string{"l": "a\nb"} }},

		{"", "largest spec", func(s *Spec) { padTo(s, SpecBytesMax) }},
		{"spec", "large spec", func(s *Spec) { padTo(s, SpecBytesMax+1) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			spec := validSpec()
			c.set(&spec)
			err := spec.Validate()
			switch {
			case c.field == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.field != "" && err == nil:
				t.Error("accepted")
			case c.field != "" && (!strings.HasPrefix(err.Error(), c.field+": ") || strings.Contains(err.Error(), "\n")):
				t.Errorf("want one problem, of %s: %v", c.field, err)
			}
		})
	}
}

func rows(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = "x"
	}
	return list
}

func manyLabels(n int) map[string]string {
	labels := make(map[string]string, n)
	for i := range n {
		labels[fmt.Sprintf("l%d", i)] = ""
	}
	return labels
}

// padTo makes the JSON form of s exactly n bytes long.
func padTo(s *Spec, n int) {
	s.Command = append(s.Command, "")
	s.Command[len(s.Command)-1] = strings.Repeat("x", n-len(s.canonical()))
}

// TestEveryProblemIsReportedAtOnce: a user mends a spec in one go.
func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	bad := Spec{
		Name: "a\nb", Pool: "P", Priority: "urgent", GPUs: -1, Workdir: "here",
		Env: map[string]string{"1": "", "GPUQ_X": ""}, TimeLimit: -1, Grace: -1, MaxAttempts: 0,
		RetryOn: []int{0, 300}, Backoff: []Duration{-1, Duration(backoffStepMax) * 2}, Key: "\x00", Expires: -1,
		Labels: map[string]string{"": "", "ok": "\n"},
	}
	want := map[string]int{
		"command": 1, "name": 1, "pool": 1, "priority": 1, "gpus": 1, "workdir": 1, "env": 2, "time_limit": 1,
		"grace": 1, "max_attempts": 1, "retry_on": 2, "backoff": 2, "key": 1, "expires": 1, "labels": 2,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	got := map[string]int{}
	for line := range strings.Lines(err.Error()) {
		field, _, _ := strings.Cut(line, ": ")
		got[field]++
	}
	for field, n := range want {
		if got[field] != n {
			t.Errorf("%s: %d problems, want %d", field, got[field], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("problems of other fields, too:\n%v", err)
	}
}

func TestProblemsComeInTheSameOrder(t *testing.T) {
	spec := validSpec()
	spec.Env = map[string]string{}
	spec.Labels = map[string]string{}
	for i := range 20 {
		spec.Env[fmt.Sprintf("%d", i)] = ""
		spec.Labels[fmt.Sprintf("-%d", i)] = ""
	}
	first := spec.Validate().Error()
	for range 20 {
		if again := spec.Validate().Error(); again != first {
			t.Fatalf("\n%s\nthen\n%s", first, again)
		}
	}
}

// TestValidateNeverPanics: it is the first to see what a stranger sent.
func TestValidateNeverPanics(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		s := Spec{
			Command: rapid.SliceOf(text).Draw(t, "command"), Pool: text.Draw(t, "pool"), Key: text.Draw(t, "key"),
			Priority: Priority(text.Draw(t, "priority")), GPUs: rapid.Int().Draw(t, "gpus"), Workdir: text.Draw(t, "workdir"),
			Env: rapid.MapOf(text, text).Draw(t, "env"), Labels: rapid.MapOf(text, text).Draw(t, "labels"),
			TimeLimit: Duration(rapid.Int64().Draw(t, "limit")), RetryOn: rapid.SliceOf(rapid.Int()).Draw(t, "retry on"),
		}
		if s.Validate() == nil {
			t.Fatal("a spec without backoff was accepted")
		}
	})
}

func TestNewJobIsQueuedAndExpiresAsAsked(t *testing.T) {
	now := At(time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC))
	spec := validSpec()
	spec.Expires = Duration(time.Hour)
	id := NewID()
	j := New(id, "ada", spec, now)
	if j.ID != id || j.Schema != Schema || j.State != Queued || j.Submitter != "ada" || j.SpecHash != spec.Hash() ||
		j.Queue != spec.Shape().Queue() || j.SubmittedAt != now || j.PublishedAt != now || !j.NotBefore.IsZero() {
		t.Errorf("%+v", j)
	}
	if j.Attempt != 0 || j.Fence != 0 || j.Owner != nil || j.Kill != nil || j.Result != nil {
		t.Errorf("a fresh job has a past: %+v", j)
	}
	if len(j.History) != 1 || j.History[0].State != Queued || j.History[0].At != now {
		t.Errorf("history %+v", j.History)
	}
	for after, want := range map[time.Duration]bool{0: false, time.Hour: false, time.Hour + time.Microsecond: true} {
		if got := j.Expired(At(now.Add(after))); got != want {
			t.Errorf("expired after %s: %v, want %v", after, got, want)
		}
	}
	spec.Expires = 0
	if j := New(id, "ada", spec, now); !j.ExpiresAt.IsZero() || j.Expired(At(now.Add(timeLimitMax))) {
		t.Error("a job without expires has expired")
	}
}

func TestRequeueBeginsAnewUnderAnIDOfItsOwn(t *testing.T) {
	now := At(time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC))
	spec := validSpec()
	spec.Expires, spec.Key = Duration(time.Hour), "nightly"
	old := New(KeyID("ada", "nightly"), "ada", spec, now)
	old.State, old.Attempt, old.Fence, old.Failures, old.Requeues, old.Lost = Dead, 7, 9, 3, 2, 1
	old.Kill, old.CommitID, old.Result = &Kill{ID: "k"}, "c", &Result{Attempt: 7}
	later := At(now.Add(48 * time.Hour))
	j := Requeue(old, later)
	want := New(RequeueID(old.ID), "ada", spec, later)
	want.RequeueOf, want.History[0].Reason = old.ID, "requeue of "+string(old.ID)
	if !reflect.DeepEqual(j, want) {
		t.Errorf("got  %+v\nwant %+v", j, want)
	}
	if again := Requeue(j, later); again.ID == j.ID || again.RequeueOf != j.ID {
		t.Errorf("the requeue of a requeue is %s of %s", again.ID, again.RequeueOf)
	}
}

func TestWroteFindsAWriteByItsIdentity(t *testing.T) {
	j := &Job{History: []Change{{State: Queued}, {ID: "claim-1", State: Claimed}}}
	if !j.Wrote("claim-1") || j.Wrote("claim-2") {
		t.Error("the history's identities are not found as they are")
	}
}

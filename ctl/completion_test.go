package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// offered returns the words that Tab offers behind args; "" for its last begins
// a new word.
func offered(t *testing.T, d *daemon, args ...string) []string {
	t.Helper()
	r := gpuqctl(t, d, append([]string{"__complete"}, args...)...)
	if r.code != 0 {
		t.Fatalf("exit %d, stderr %q", r.code, r.err.String())
	}
	var words []string
	for line := range strings.Lines(r.out.String()) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !strings.HasPrefix(word, ":") {
			words = append(words, word)
		}
	}
	return words
}

func TestCompletion(t *testing.T) {
	d := startDaemon(t)
	hosted(d)
	text, _ := set(d)
	d.hosts[1].Drained = &control.Drain{Who: "root", Reason: "fan"}
	d.devices.Devices[1].Drained = &control.Drain{Who: "root", Reason: "XID 79"}
	d.events = []control.EventRow{{Target: "gpu1"}, {Target: "gpu1"}, {Target: string(idB)}}
	d.put(control.JobRow{ID: idD, State: job.Queued, Submitter: "bob", Name: "a\x1bname"}, control.JobRow{ID: idC, State: job.Succeeded, Submitter: "ada"})
	all := []string{string(idD), string(idC), string(idB), string(idA)}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"JobsToShow":           {[]string{"show", ""}, all},
		"NoSecondJobToShow":    {[]string{"show", string(idA), ""}, nil},
		"JobsToKillAreNotOver": {[]string{"kill", ""}, []string{string(idD), string(idB), string(idA)}},
		"NotTheOneThatIsThere": {[]string{"kill", string(idD), ""}, []string{string(idB), string(idA)}},
		"JobsByTheirBeginning": {[]string{"logs", "-f", string(idB)[:35] + "b"}, []string{string(idB)}},
		"JobsToHold":           {[]string{"hold", ""}, []string{string(idD)}},
		"JobsToRelease":        {[]string{"release", ""}, nil},
		"HostsToDrain":         {[]string{"drain", ""}, []string{"gpu1", "gpu2"}},
		"DevicesToDrain":       {[]string{"drain", "gpu1/"}, []string{"gpu1/GPU-aa01", "gpu1/GPU-bb02"}},
		"WhatToResume":         {[]string{"resume", ""}, []string{"gpu2", "gpu1/GPU-bb02"}},
		"HostFlag":             {[]string{"devices", "--host", ""}, []string{"gpu1", "gpu2"}},
		"Pools":                {[]string{"submit", "--pool", ""}, []string{"default", "large"}},
		"Models":               {[]string{"submit", "--gpu-model", ""}, []string{"h200"}},
		"Priorities":           {[]string{"submit", "--priority", ""}, []string{"high", "normal", "low"}},
		"States":               {[]string{"list", "--state", "queued,r"}, []string{"queued,running", "queued,retrying"}},
		"Users":                {[]string{"list", "--user", ""}, []string{"ada", "bob"}},
		"Modes":                {[]string{"drain", "gpu1", "--mode", ""}, []string{"finish", "requeue", "kill"}},
		"Colours":              {[]string{"--color", ""}, []string{"auto", "always", "never"}},
		"Dead":                 {[]string{"dead", "show", ""}, []string{text[:16], "a0b1c2d3a0b1c2d3", string(idA)}},
		"DeadMessages":         {[]string{"dead", "purge", "5f"}, []string{text[:16]}},
		"EventTargets":         {[]string{"events", "--target", ""}, []string{"gpu1", string(idB)}},
		"Shells":               {[]string{"completion", ""}, []string{"bash", "zsh", "fish"}},
		"Verbs":                {[]string{"rel"}, []string{"release"}},
		"VerbsOfAFamily":       {[]string{"dead", ""}, []string{"list", "show", "requeue", "purge"}},
		"Flags":                {[]string{"drain", "--re"}, []string{"--reason"}},
		"UnknownFlag":          {[]string{"show", "--explode", ""}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := offered(t, d, c.args...)
			if name == "States" {
				slices.Sort(got)
				slices.Sort(c.want)
				got = slices.DeleteFunc(got, func(w string) bool { return !strings.HasPrefix(w, "queued,r") })
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("offered %q, want %q", got, c.want)
			}
		})
	}
	t.Run("DescriptionsAreSafe", func(t *testing.T) {
		r := gpuqctl(t, d, "__complete", "hold", "")
		r.want(t, 0, string(idD)+"\tqueued bob a?name\n", anything)
	})
}

// A person in the middle of a line sees neither an error nor a delay.
func TestCompletionWithoutADaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "gpuq")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	mute := filepath.Join(dir, "mute") // takes connections and never answers
	listener, err := net.Listen("unix", mute)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	broken := filepath.Join(dir, "gpuqctl.toml")
	if err := os.WriteFile(broken, []byte("="), 0o600); err != nil {
		t.Fatal(err)
	}
	silent := filepath.Join(dir, "broker.toml")
	secret := filepath.Join(dir, "secret")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	text := "sockets = []\n[broker]\nurls = [\"amqp://" + tcp.Addr().String() + "/gpuq\"]\nuser = \"ada\"\npassword_file = \"" + secret + "\"\n"
	for path, text := range map[string]string{silent: text, secret: "x"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, flag := range map[string][]string{
		"NobodyListens":       {"--socket", filepath.Join(dir, "nobody")},
		"NobodyAnswers":       {"--socket", mute},
		"ASilentBroker":       {"--config", silent},
		"ABrokenConfig":       {"--config", broken},
		"AConfigThatIsAbsent": {"--config", filepath.Join(dir, "absent")},
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{{"drain", "gpu1/"}, {"submit", "--pool", ""}} {
				began := time.Now()
				r := gpuqctl(t, nil, slices.Concat([]string{"__complete"}, flag, args)...)
				// Well above the bound, which is of the program and not of a busy machine.
				if took := time.Since(began); took > 10*completeTimeout {
					t.Errorf("%v took %s", args, took)
				}
				if r.code != 0 || r.out.String() != ":4\n" {
					t.Errorf("%v: exit %d, stdout %q", args, r.code, r.out.String())
				}
				if err := strings.TrimSpace(r.err.String()); err != "" && err != "Completion ended with directive: ShellCompDirectiveNoFileComp" {
					t.Errorf("%v: stderr %q", args, err)
				}
			}
		})
	}
}

// The scripts are read by the shells that are here; bash is everywhere.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			r := gpuqctl(t, nil, "completion", shell)
			r.want(t, 0, "gpuqctl", "")
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("there is no %s here", shell)
			}
			cmd := exec.CommandContext(t.Context(), path, "-n")
			cmd.Stdin = strings.NewReader(r.out.String())
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

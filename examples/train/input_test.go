package train_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	kept := t.TempDir()
	whole, _ := train(t, kept, short...)
	good, err := os.ReadFile(filepath.Join(kept, "train.checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	// A changed digit leaves sound JSON behind: only the checksum can tell.
	changed := bytes.Clone(good)
	digit := bytes.LastIndexAny(changed, "0123456789")
	changed[digit] = '0' + (changed[digit]-'0'+1)%10
	damaged := map[string][]byte{
		"Empty":       {},
		"Truncated":   good[:len(good)-7],
		"ADigit":      changed,
		"Garbage":     []byte("\x00\xff\xfe no checkpoint"),
		"OtherFormat": []byte("another program's file\n{}"),
	}
	for name, content := range damaged {
		t.Run(name+"IsIgnoredWithAWord", func(t *testing.T) {
			workdir := t.TempDir()
			if err := os.WriteFile(filepath.Join(workdir, "train.checkpoint"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			result, said := train(t, workdir, short...)
			if !strings.Contains(said, "checkpoint ignored, starting again: it is damaged") || result != whole {
				t.Errorf("want the word and %s, got:\n%s", whole, said)
			}
		})
	}
	t.Run("OfOtherParametersIsIgnoredWithAWord", func(t *testing.T) {
		_, said := train(t, kept, append(short, "--lr", "0.04")...)
		if !strings.Contains(said, "checkpoint ignored, starting again: it is of other parameters (lr 0.05, now 0.04)") {
			t.Errorf("got:\n%s", said)
		}
	})
	t.Run("ThatCannotBeSavedDoesNotEndTheRun", func(t *testing.T) {
		workdir := t.TempDir()
		if err := os.Mkdir(filepath.Join(workdir, "train.checkpoint"), 0o700); err != nil {
			t.Fatal(err)
		}
		result, said := train(t, workdir, short...)
		if !strings.Contains(said, "checkpoint not saved, going on") || result != whole {
			t.Errorf("want the word and %s, got:\n%s", whole, said)
		}
	})
}

func TestBadInputIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	const header = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm,species\n"
	table := func(content string) string {
		path := filepath.Join(t.TempDir(), "table.csv")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cases := map[string]struct {
		args []string
		want string
	}{
		"NoRate":       {[]string{"--lr", "0"}, "'0' is not a number above 0 and at most 100"},
		"NaNRate":      {[]string{"--lr", "nan"}, "'nan' is not a number above 0"},
		"HalfALayer":   {[]string{"--hidden", "1.5"}, "'1.5' is not a whole number from 1 to 1024"},
		"NoEpochs":     {[]string{"--epochs", "0"}, "'0' is not a whole number from 1 to"},
		"UnknownFlag":  {[]string{"--lerning"}, "unrecognized arguments: --lerning"},
		"NoFile":       {[]string{"--data", "no such file"}, "cannot read no such file"},
		"NoHeader":     {[]string{"--data", table("5.1,3.5,1.4,0.2,setosa\n")}, "line 1: want the header sepal_length_cm,"},
		"NoLength":     {[]string{"--data", table(header + "5.1,3.5,1.4,wide,setosa\n")}, "line 2: 'wide' is no length"},
		"TooFewFields": {[]string{"--data", table(header + "5.1,3.5,1.4,0.2\n")}, "line 2: 4 fields, want 5"},
		"OneSpecies":   {[]string{"--data", table(header + "5.1,3.5,1.4,0.2,setosa\n")}, "has 1 species: want at least 2"},
		"Binary":       {[]string{"--data", table("\xff\xfe\x00")}, "is not UTF-8 text"},
		"NoDirectory":  {[]string{"--workdir", "/dev/null/below"}, "/dev/null/below"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out := run(t, program(t, nil, "train.py", c.args...))
			if out.code != 2 || !strings.Contains(out.stderr, c.want) || strings.Contains(out.stderr, "Traceback") {
				t.Errorf("exit code %d, want 2 and %q:\n%s", out.code, c.want, out.stderr)
			}
		})
	}
}

func TestGrantedDevicesAreSaid(t *testing.T) {
	t.Parallel()
	out := run(t, program(t, []string{"CUDA_VISIBLE_DEVICES=GPU-aa,GPU-bb"}, "train.py", short...))
	if !strings.Contains(out.stdout, "CUDA_VISIBLE_DEVICES=GPU-aa,GPU-bb\n") {
		t.Errorf("got:\n%s", out.stdout)
	}
}

// testimony is a line of a witness file.
type testimony struct {
	Event    string
	JobID    string `json:"job_id"`
	Attempt  int
	PID      int
	Time     time.Time
	Boottime float64
	Device   string
	Result   map[string]string
}

func TestWitnessTellsStartStopAndEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "witness.jsonl")
	args := append([]string{"--witness", path}, short...)
	interrupt(t, "", "epoch 10/100", syscall.SIGTERM, append(args, "--slow-epoch", "0.1")...)
	env := []string{"GPUQ_JOB_ID=0190b3e4-0000-7000-8000-000000000001", "GPUQ_ATTEMPT=2", "CUDA_VISIBLE_DEVICES=GPU-aa"}
	out := run(t, program(t, env, "train.py", args...))
	lines := witnessed(t, path)
	if len(lines) != 4 || lines[0].Event != "start" || lines[1].Event != "stop" || lines[0].PID != lines[1].PID {
		t.Fatalf("got %+v", lines)
	}
	start, end := lines[2], lines[3]
	if start.Event != "start" || start.JobID != env[0][len("GPUQ_JOB_ID="):] || start.Attempt != 2 || start.Device != "GPU-aa" {
		t.Errorf("start: %+v", start)
	}
	if end.Event != "end" || end.PID != start.PID || end.Boottime < start.Boottime || end.Time.IsZero() {
		t.Errorf("end: %+v", end)
	}
	for name, value := range end.Result {
		if !strings.Contains(out.stdout, name+"="+value) {
			t.Errorf("the witness has %s=%s, the log not:\n%s", name, value, out.stdout)
		}
	}
	if len(end.Result) < 7 {
		t.Errorf("result: %v", end.Result)
	}
}

func witnessed(t *testing.T, path string) []testimony {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []testimony
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var line testimony
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		all = append(all, line)
	}
	return all
}

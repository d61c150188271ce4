package campaign

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// beat is how often a payload tells its witness that it goes on. What is known
// of an execution is known to within about one of them.
const beat = 100 * time.Millisecond

// PayloadOptions say what an execution does.
type PayloadOptions struct {
	Dir      string        // of the witness files
	Runs     time.Duration // in beats: time in which it is frozen does not count
	Endless  bool          // goes on until it is killed
	Deaf     bool          // ignores SIGTERM
	Failures int           // so many executions of the job that end by themselves exit with Code
	Code     int
}

// line is one line of a witness file. The first is Start, the last End; between
// them only At is set.
type line struct {
	At    int64  `json:"at"` // Unix time in nanoseconds
	Start *start `json:"start,omitempty"`
	End   *end   `json:"end,omitempty"`
}

type start struct {
	Job     job.ID   `json:"job"`
	Attempt int      `json:"attempt"`
	PID     int      `json:"pid"`
	Devices []string `json:"devices"`
	GPUs    string   `json:"gpus"`
	// Shim is the command line of the parent: it names the host's directory.
	Shim string `json:"shim"`
}

type end struct {
	Code int `json:"code"`
}

// Payload is what a job of a campaign runs. It appends to a file of its own per
// job and attempt, syncs its start and end, and returns its exit code.
func Payload(o PayloadOptions) (code int, err error) {
	if o.Deaf {
		signal.Ignore(syscall.SIGTERM)
	}
	s := start{
		Job: job.ID(os.Getenv(runner.EnvJobID)), PID: os.Getpid(), GPUs: os.Getenv("GPUQ_GPUS"),
		Devices: splitList(os.Getenv("CUDA_VISIBLE_DEVICES")),
	}
	if s.Attempt, err = strconv.Atoi(os.Getenv(runner.EnvAttempt)); err != nil {
		return 0, fmt.Errorf("%s: %w: a payload is run by gpuqd", runner.EnvAttempt, err)
	}
	shim, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/cmdline")
	if err != nil {
		return 0, err
	}
	s.Shim = strings.ReplaceAll(strings.TrimRight(string(shim), "\x00"), "\x00", " ")
	key := runner.Key{JobID: s.Job, Attempt: s.Attempt}
	file, err := os.OpenFile(filepath.Join(o.Dir, key.String()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if err := tell(file, line{Start: &s}, true); err != nil {
		return 0, err
	}
	fmt.Printf("witness %s %d %s\n", s.Job, s.Attempt, hostOf(s.Shim)) // the judge looks for it in the result
	if err := o.live(file); err != nil {
		return 0, err
	}
	failed, err := failures(o.Dir, s.Job)
	if err != nil {
		return 0, err
	}
	if failed < o.Failures {
		code = o.Code
	}
	return code, tell(file, line{End: &end{Code: code}}, true)
}

// live lets the execution last.
func (o PayloadOptions) live(file *os.File) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for n := time.Duration(0); o.Endless || n < o.Runs; n += beat {
		<-tick.C
		if err := tell(file, line{}, false); err != nil {
			return err
		}
	}
	return nil
}

// tell appends one line, stamped now, in one write.
func tell(file *os.File, l line, sync bool) error {
	l.At = time.Now().UnixNano()
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(text, '\n')); err != nil {
		return err
	}
	if sync {
		return file.Sync()
	}
	return nil
}

// failures counts the executions of a job that have ended with another code than
// 0 by themselves.
func failures(dir string, id job.ID) (n int, err error) {
	files, err := filepath.Glob(filepath.Join(dir, string(id)+".*"))
	if err != nil {
		return 0, err
	}
	for _, path := range files {
		executions, err := readWitness(path)
		if err != nil {
			return 0, err
		}
		for _, x := range executions {
			if x.Complete && x.Code != 0 {
				n++
			}
		}
	}
	return n, nil
}

func splitList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

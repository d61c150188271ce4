package floor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// The record of an attempt: six blocks, as daemon/runner has them.
const (
	slotBytes   = 4096
	slots       = 6
	slotVerdict = 5
)

// attempt is the directory of one attempt.
type attempt struct {
	dir   string
	syncs int // of those left to the verdict
}

// begin makes the directory, in its place when it is whole, and syncs as many of:
// intent, record, the directory, the one around it, (the verdict, later,) the lock.
func begin(attempts string, in runner.Intent, syncs int) (*attempt, int, error) {
	dir := filepath.Join(attempts, in.Key().String())
	tmp := dir + ".new"
	done := 0
	sync := func(place int, file *os.File) error {
		if place >= syncs {
			return nil
		}
		done++
		if place == 2 || place == 3 {
			return file.Sync() // a directory
		}
		return syscall.Fdatasync(int(file.Fd()))
	}
	err := errors.Join(
		os.Mkdir(tmp, 0o700),
		write(filepath.Join(tmp, "intent"), []byte(text(in)), func(f *os.File) error { return sync(0, f) }),
		write(filepath.Join(tmp, "record"), make([]byte, slots*slotBytes), func(f *os.File) error { return sync(1, f) }),
		write(filepath.Join(tmp, "lock"), nil, func(f *os.File) error { return sync(5, f) }),
		syncDir(tmp, func(f *os.File) error { return sync(2, f) }),
		os.Rename(tmp, dir),
		syncDir(attempts, func(f *os.File) error { return sync(3, f) }),
	)
	if err != nil {
		return nil, done, fmt.Errorf("begin attempt %s: %w", in.Key(), err)
	}
	if in.Workdir != "" {
		err = os.MkdirAll(in.Workdir, 0o700)
	}
	return &attempt{dir: dir, syncs: syncs}, done, err
}

func write(path string, data []byte, sync func(*os.File) error) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, sync(file), file.Close())
}

func syncDir(path string, sync func(*os.File) error) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(sync(dir), dir.Close())
}

// settle writes the verdict into its block.
func (a *attempt) settle(commitID string) (synced int, err error) {
	file, err := os.OpenFile(filepath.Join(a.dir, "record"), os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	block := make([]byte, slotBytes)
	copy(block, text(runner.Verdict{CommitID: commitID, Time: time.Now().UTC()}))
	if _, err = file.WriteAt(block, slotVerdict*slotBytes); err == nil && a.syncs > 4 {
		synced, err = 1, syscall.Fdatasync(int(file.Fd()))
	}
	return synced, errors.Join(err, file.Close())
}

// tail reads the output back for the result.
func (a *attempt) tail() (string, error) {
	data, err := os.ReadFile(filepath.Join(a.dir, "output.log"))
	return string(data), err
}

// launch starts the shim and returns when it has recorded the command's start.
func (a *attempt) launch(c Config, id job.ID) (*os.Process, error) {
	log, err := os.OpenFile(filepath.Join(a.dir, "shim.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	answer, word, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	cgroup := "-"
	if c.Cgroups != "" {
		cgroup = filepath.Join(c.Cgroups, "gpuq-floor-"+string(id))
	}
	proc, err := os.StartProcess(c.Shim, append([]string{"gpuq-floor-shim", "run", a.dir, cgroup, strconv.Itoa(c.Recipe.ShimSyncs)}, c.Command...), &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GOGC=20", "GPUQ_JOB_ID=" + string(id), "CUDA_VISIBLE_DEVICES="},
		Files: []*os.File{null, log, log, word}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	_ = word.Close() // the shim has its own
	if err != nil {
		return nil, err
	}
	var b [1]byte
	if _, err := io.ReadFull(answer, b[:]); err != nil {
		_, _ = proc.Wait()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("the floor's shim ended without an answer: %w: %s", err, said)
	}
	return proc, nil
}

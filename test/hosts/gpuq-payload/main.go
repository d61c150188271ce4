// Gpuq-payload is what the jobs of test/hosts run, and their witness: it appends
// a line to a file of its attempt's own when it starts, every so often while it
// works, and when it ends, each synced. The tests judge by these files what ran,
// where, when and as whom; no word of gpuqd's is in them.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/test/hosts/witness"
)

func main() {
	dir := flag.String("witness", witness.Dir, "`directory` that any user may write to")
	work := flag.Duration("work", 0, "how long to work: time in which it was frozen does not count")
	until := flag.String("until", "", "work until this `file` is there")
	print := flag.Int("print", 0, "print so many `bytes` a second to stdout")
	memory := flag.Int("memory", 0, "take so many `bytes` of memory, and keep them")
	var open list
	flag.Var(&open, "open", "open this `file` for reading and writing, and say how that went; can be repeated")
	flag.Parse()
	if err := run(*dir, *work, *until, *print, *memory, open); err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-payload:", err)
		os.Exit(1)
	}
}

type list []string

func (l *list) String() string { return fmt.Sprint(*l) }

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func run(dir string, work time.Duration, until string, print, memory int, open []string) error {
	name := fmt.Sprintf("%s.%s", os.Getenv("GPUQ_JOB_ID"), os.Getenv("GPUQ_ATTEMPT"))
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("a second execution of this attempt, or no directory of witnesses: %w", err)
	}
	defer file.Close()
	first := &witness.Line{Event: witness.Start, Opened: map[string]string{}}
	first.Host, _ = os.Hostname()
	first.UID, first.GID, first.Home = os.Getuid(), os.Getgid(), os.Getenv("HOME")
	first.Devices = os.Getenv("CUDA_VISIBLE_DEVICES")
	if first.Groups, err = os.Getgroups(); err != nil {
		return err
	}
	for _, path := range open {
		first.Opened[path] = try(path)
	}
	if err := say(file, first); err != nil {
		return err
	}
	// A name in the directory outlives a power cut only if that is synced, too.
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // the next line is as good
		_ = d.Close()
	}
	kept := make([]byte, memory)
	for i := 0; i < len(kept); i += 4096 {
		kept[i] = 1
	}
	for done := time.Duration(0); !over(done, work, until); done += witness.Beat {
		time.Sleep(witness.Beat)
		if print > 0 {
			fmt.Println(string(make([]byte, int(float64(print)*witness.Beat.Seconds()))))
		}
		if err := say(file, &witness.Line{Event: witness.Working}); err != nil {
			return err
		}
	}
	return say(file, &witness.Line{Event: witness.End})
}

func over(done, work time.Duration, until string) bool {
	if until != "" {
		_, err := os.Stat(until)
		return err == nil
	}
	return done >= work
}

func try(path string) string {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_ = file.Close() // it has been opened
		return "opened"
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		return unix.ErrnoName(number)
	}
	return err.Error()
}

func say(file *os.File, line *witness.Line) error {
	line.At = time.Now().UnixMilli()
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(text, '\n')); err != nil {
		return err
	}
	return file.Sync()
}

// Program gpuq-stamp is what the jobs of the benchmarks run. It reads the clock
// first of all, works for a while (asleep, as a job on a GPU leaves the host's
// processors alone), reads the clock again, and appends one line to a file:
//
//	<job> <devices> <nanoseconds of the start> <nanoseconds of the end>
//
// by CLOCK_REALTIME. It imports next to nothing, so that little happens before
// its first instruction; what does (the exec, and the start of Go's runtime) is
// measured by itself, with no queue at all.
//
//	gpuq-stamp FILE [MILLISECONDS]
package main

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	start := time.Now().UnixNano()
	if len(os.Args) < 2 {
		os.Exit(2)
	}
	if len(os.Args) > 2 {
		n, err := strconv.Atoi(os.Args[2])
		if err != nil {
			os.Exit(2)
		}
		time.Sleep(time.Duration(n) * time.Millisecond)
	}
	end := time.Now().UnixNano()
	line := make([]byte, 0, 200)
	line = append(append(line, os.Getenv("GPUQ_JOB_ID")...), ' ')
	line = append(append(line, os.Getenv("CUDA_VISIBLE_DEVICES")...), ' ')
	line = append(strconv.AppendInt(line, start, 10), ' ')
	line = append(strconv.AppendInt(line, end, 10), '\n')
	// One write to a file opened for appending: lines of several do not mix.
	fd, err := syscall.Open(os.Args[1], syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		os.Exit(1)
	}
	if n, err := syscall.Write(fd, line); err != nil || n != len(line) {
		os.Exit(1)
	}
}

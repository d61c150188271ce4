// Program gpuqd-device reports the NVIDIA devices of this host, one JSON line
// (device.Report) at a time, on standard output. gpuqd runs it as a child: it is
// the only program of gpuqd that links NVML, so that a driver which hangs or
// crashes its caller takes this process and nothing else.
//
// Lines are heartbeats, inventories, which come every so often, and events (XIDs and
// double-bit errors) as they happen. A line "look 7" on standard input asks for an
// inventory at once, which then says look 7.
//
// A heartbeat means progress. While the driver keeps the calls of all devices, or the
// wait for events, nothing at all is written: that is how gpuqd learns of it. A device
// that hangs alone is sick, and the others' inventory goes on without it.
//
// It ends by itself when standard input or output closes: then gpuqd is gone.
//
// Exit codes: 0 done, 1 the driver failed later or output closed, 2 wrong usage,
// 3 NVML did not initialise (device.ExitNoDriver).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

func main() { os.Exit(start(os.Args[1:])) }

func start(args []string) int {
	flags := flag.NewFlagSet("gpuqd-device", flag.ContinueOnError)
	var opts options
	flags.DurationVar(&opts.interval, "interval", 5*time.Second, "time between two inventories")
	flags.DurationVar(&opts.heartbeat, "heartbeat", time.Second, "time between two signs of life")
	flags.DurationVar(&opts.patience, "patience", 5*time.Second, "how long an inventory waits for a device whose calls the driver keeps")
	flags.StringVar(&opts.library, "library", "", "path of the NVML library; empty is libnvidia-ml.so.1, where the linker finds it")
	flags.BoolVar(&opts.once, "once", false, "print one inventory and exit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || opts.interval <= 0 || opts.heartbeat <= 0 || opts.patience <= 0 {
		fmt.Fprintln(os.Stderr, "gpuqd-device: takes flags only, and times above zero; see --help")
		return 2
	}
	// With SIGPIPE ignored a closed output is an error of the write, and NVML is
	// shut down properly.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	note, in := noteTo(os.Stderr), newInput()
	if !opts.once {
		ctx = in.follow(ctx, os.Stdin, note)
	}
	var library []nvml.LibraryOption
	if opts.library != "" {
		library = append(library, nvml.WithLibraryPath(opts.library))
	}
	return run(ctx, nvml.New(library...), in, os.Stdout, opts, note)
}

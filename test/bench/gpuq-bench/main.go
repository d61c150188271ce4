// Program gpuq-bench measures gpuqd on a cluster of its own. See package
// gpuqd/test/bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"gpuqd/test/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-bench:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "gpuq-bench", Short: "How fast gpuqd is, and how fast it could be",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(runCommand(), reportCommand(), floorCommand())
	return root
}

func runCommand() *cobra.Command {
	o := bench.Defaults()
	var result string
	cmd := &cobra.Command{
		Use: "run", Short: "Measure, and print a table", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			if o.BinDir, err = filepath.Abs(o.BinDir); err != nil {
				return err
			}
			o.Progress = os.Stderr
			r, err := bench.Run(cmd.Context(), o)
			if r == nil {
				return err
			}
			if result != "" {
				err = errors.Join(err, r.Save(result))
			}
			return errors.Join(err, r.Print(os.Stdout))
		},
	}
	s := cmd.Flags()
	s.StringVar(&o.BinDir, "bin", "bin", "where the programs are")
	s.StringVar(&o.Dir, "dir", os.TempDir(), "where its files are meanwhile: the file system that is measured")
	s.StringVar(&result, "result", "", "file for the result as JSON")
	s.IntVar(&o.Devices, "devices", o.Devices, "simulated devices of the one host")
	s.IntVar(&o.Nodes, "nodes", o.Nodes, "RabbitMQ nodes")
	s.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of gpuqd and the floor in turn")
	s.IntVar(&o.Jobs, "jobs", o.Jobs, "jobs of a batch of /bin/true")
	s.IntVar(&o.Samples, "samples", o.Samples, "jobs submitted one after the other, over all rounds")
	s.IntVar(&o.Busy, "busy", o.Busy, "jobs that work for a while")
	s.DurationVar(&o.Work, "work", o.Work, "for how long these work")
	s.DurationVar(&o.Idle, "idle", o.Idle, "over how long idleness is measured")
	s.IntSliceVar(&o.Waiting, "waiting", o.Waiting, "how many jobs wait while others are dispatched, rising")
	s.IntVar(&o.Dispatch, "dispatch", o.Dispatch, "how many are dispatched then")
	return cmd
}

func reportCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "report RESULT", Short: "Write the page of a result", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := bench.Load(args[0])
			if err != nil {
				return err
			}
			return os.WriteFile(path, bench.Report(r), 0o644)
		},
	}
	cmd.Flags().StringVar(&path, "report", "docs/performance.md", "file to write")
	return cmd
}

func floorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "floor", Short: "What each job must do, and nothing else; its configuration is on stdin", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return bench.Floor(cmd.Context(), os.Stdin, os.Stdout) },
	}
}

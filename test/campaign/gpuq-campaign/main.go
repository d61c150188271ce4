// Program gpuq-campaign breaks a cluster of its own at random and says what came
// of the jobs. See package gpuqd/test/campaign.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gpuqd/test/campaign"
)

func main() {
	code := 0
	if err := command(&code).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-campaign:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func command(code *int) *cobra.Command {
	root := &cobra.Command{
		Use: "gpuq-campaign", Short: "Random real faults on a real cluster, judged",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(runCommand(code), planCommand(), reportCommand(), payloadCommand(code), holdCommand())
	return root
}

// flags are those of a campaign.
type flags struct {
	options campaign.Options
	classes []string
	result  string
	brief   bool
}

func (f *flags) register(cmd *cobra.Command) {
	s := cmd.Flags()
	s.Uint64Var(&f.options.Seed, "seed", 0, "what the faults and jobs are drawn from; 0 draws one")
	s.IntVar(&f.options.Plan.Faults, "faults", 100, "faults to do")
	s.DurationVar(&f.options.Plan.Gap, "gap", 15*time.Second, "time between two faults on average")
	s.StringSliceVar(&f.classes, "classes", nil, "classes of faults to draw from; none is all: "+strings.Join(classNames(), " "))
	s.IntVar(&f.options.Work.Jobs, "jobs", 500, "jobs to submit")
	s.BoolVar(&f.brief, "brief", false, "short jobs, and each fault as short as its class allows")
	s.StringVar(&f.options.Ledger, "ledger", "sqlite", "sqlite or mongodb")
	s.StringVar(&f.options.BinDir, "bin", "bin", "where the programs are")
	s.StringVar(&f.options.Evidence, "evidence", "", "directory for documents, events and logs; none keeps nothing")
	s.StringVar(&f.result, "result", "", "file for the result as JSON")
}

func (f *flags) complete() error {
	for _, name := range f.classes {
		f.options.Plan.Classes = append(f.options.Plan.Classes, campaign.Class(name))
	}
	if f.options.Seed == 0 {
		f.options.Seed = uint64(time.Now().UnixNano())
	}
	f.options.Plan.Brief, f.options.Work.Brief = f.brief, f.brief
	var err error
	if f.options.Program, err = os.Executable(); err != nil {
		return err
	}
	for _, path := range []*string{&f.options.BinDir, &f.options.Evidence, &f.result} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	f.options.Progress = os.Stderr
	return nil
}

func classNames() []string {
	var names []string
	for _, class := range campaign.Classes() {
		names = append(names, string(class))
	}
	return names
}

// statusBroken is the exit code of a campaign in which a promise was broken.
const statusBroken = 3

func runCommand(code *int) *cobra.Command {
	f := new(flags)
	cmd := &cobra.Command{
		Use: "run", Short: "Run a campaign; exit code 3 says that a promise was broken", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !campaign.Isolated() {
				var err error
				*code, err = campaign.Isolate()
				if !errors.Is(err, campaign.ErrNoNamespace) {
					return err
				}
				fmt.Fprintln(os.Stderr, "gpuq-campaign:", err)
			}
			if err := f.complete(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			result, err := campaign.Run(ctx, f.options)
			if result == nil {
				return err
			}
			if !result.Good() {
				*code = statusBroken
			}
			if f.result != "" {
				err = errors.Join(err, result.Save(f.result))
			}
			return errors.Join(err, result.Print(os.Stdout))
		},
	}
	f.register(cmd)
	return cmd
}

func planCommand() *cobra.Command {
	f := new(flags)
	cmd := &cobra.Command{
		Use: "plan", Short: "Print the faults of a seed", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := f.complete(); err != nil {
				return err
			}
			fmt.Println("seed", f.options.Seed)
			for _, fault := range campaign.Plan(f.options.Seed, f.options.Plan) {
				fmt.Println(fault)
			}
			return nil
		},
	}
	f.register(cmd)
	return cmd
}

func reportCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "report RESULT...", Short: "Write the report of results", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var results []*campaign.Result
			for _, arg := range args {
				result, err := campaign.Load(arg)
				if err != nil {
					return err
				}
				results = append(results, result)
			}
			page, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			_, theirs := campaign.Parts(page)
			return os.WriteFile(path, append(campaign.Report(results), theirs...), 0o644)
		},
	}
	cmd.Flags().StringVar(&path, "report", "docs/reliability.md", "file to write")
	return cmd
}

func payloadCommand(code *int) *cobra.Command {
	var o campaign.PayloadOptions
	cmd := &cobra.Command{
		Use: "payload", Short: "What a job of a campaign runs", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) (err error) {
			*code, err = campaign.Payload(o)
			return err
		},
	}
	s := cmd.Flags()
	s.StringVar(&o.Dir, "dir", "", "")
	s.DurationVar(&o.Runs, "runs", 0, "")
	s.BoolVar(&o.Endless, "endless", false, "")
	s.BoolVar(&o.Deaf, "deaf", false, "")
	s.IntVar(&o.Failures, "failures", 0, "")
	s.IntVar(&o.Code, "code", 0, "")
	return cmd
}

func holdCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hold-ledger PATH", Short: "Hold the lock of a SQLite ledger until killed", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error { return campaign.HoldLedger(context.Background(), args[0]) },
	}
}

package main

import (
	"context"
	"fmt"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type submitCmd struct {
	*app
	flags specFlags
	file  string
	wait  bool
	json  bool
}

func newSubmit(a *app) *cobra.Command {
	c := &submitCmd{app: a}
	cmd := &cobra.Command{
		Use:   "submit [flags] -- COMMAND [ARG...]\n  gpuqctl submit -f FILE|-",
		Short: "Hand in a job, or a file of them",
		Long: `Submit hands in a job and prints its UUID, alone, on stdout. The job is confirmed
then: it will reach exactly one end, whatever fails meanwhile. The command runs
on another host, without a shell, and sees CUDA_VISIBLE_DEVICES, GPUQ_JOB_ID,
GPUQ_ATTEMPT, GPUQ_GPUS and GPUQ_WORKDIR.

With --gpu-memory it shares its GPU with other such jobs, as many as fit by what
each asks for. It finds its share in GPUQ_GPU_MEMORY_BYTES; a job that uses more is
ended (class oom_gpu). Sizes of memory are those that GPUs are sold by: 80GiB fits
one of 80 GB.

Until a daemon has confirmed it, gpuqctl sends the same job, with the same UUID,
again, for --timeout in all; if even then nobody has answered, it says so and
exits with code 7.

-f FILE submits one job per spec: a spec is a JSON object on a line of its own, or
a TOML table ([name], [[job]], or a whole file that has a command). The keys are the
flags with _ for -, but memory_max, tasks_max and labels; "command" is a list, and
sizes are in bytes. All are checked before the first is submitted. The UUIDs come on
stdout in the order of the file, progress on stderr. Give each spec a key, and the
same file can be submitted again after any trouble without a job being run twice.

--wait waits until the job has ended, and exits with its exit code.

Without --wait the exit codes are those of gpuqctl --help.

` + waitCodesHelp(),
		Example: `  gpuqctl submit -- python train.py --lr 3e-4
  gpuqctl submit --gpus 4 --time-limit 12h --max-attempts 3 --retry-on 75 -- ./train.sh
  gpuqctl submit --memory 64GiB --tasks 4096 -- ./train.sh
  gpuqctl submit --gpus 2 --gpu-model h100 --min-gpu-memory 80GiB -- ./train.sh
  gpuqctl submit --gpu-memory 12GiB -- python infer.py
  gpuqctl submit --wait --gpus 0 -- make evaluate
  id=$(gpuqctl submit --key nightly-$(date +%F) -- ./nightly.sh)
  gpuqctl submit -f sweep.toml

  # sweep.toml: each table is one job
  [lr-3e-4]
  key = "sweep-7/lr-3e-4"
  command = ["python", "train.py", "--lr", "3e-4"]
  gpus = 2`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command belongs to it
	flags.SortFlags = false
	c.flags.register(flags)
	flags.StringVarP(&c.file, "file", "f", "", "submit the specs in this `file`; - is stdin")
	flags.BoolVar(&c.wait, "wait", false, "wait for the end, and exit with the job's exit code")
	flags.BoolVar(&c.json, "json", false, "print a JSON object per job, and with --wait another when it has ended")
	_ = cmd.RegisterFlagCompletionFunc("priority", fixed(string(job.High), string(job.Normal), string(job.Low)))
	_ = cmd.RegisterFlagCompletionFunc("pool", a.complete(pools))
	_ = cmd.RegisterFlagCompletionFunc("gpu-model", a.complete(models))
	return cmd
}

func (c *submitCmd) run(cmd *cobra.Command, args []string) error {
	if c.file != "" {
		for _, name := range c.flags.names() {
			if cmd.Flags().Changed(name) {
				return usagef("--%s and -f do not go together: write %s into the specs", name, fieldOf(name))
			}
		}
		if len(args) > 0 {
			return usagef("a command and -f do not go together: write it into the specs")
		}
		return c.runFile(cmd.Context())
	}
	if len(args) == 0 {
		return usagef("there is no command: want gpuqctl submit [flags] -- COMMAND [ARG...], or -f FILE")
	}
	spec, err := c.flags.build(args)
	if err != nil {
		return usagef("%w", err)
	}
	return c.waitError(cmd.Context(), c.runOne(cmd.Context(), spec))
}

// waitError gives every failure of gpuqctl's own the one code that --wait keeps
// for it: all others are the job's.
func (c *submitCmd) waitError(ctx context.Context, err error) error {
	if !c.wait {
		return err
	}
	return ownFailure(ctx, err)
}

func (c *submitCmd) runOne(ctx context.Context, spec job.Spec) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.Submit(ctx, submission(spec))
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	if err := c.report(reply, ""); err != nil {
		return err
	}
	if !c.wait {
		return nil
	}
	return c.await(ctx, client, []job.ID{reply.ID}, func(row control.JobRow) error {
		if c.json {
			return c.printLine(row)
		}
		return nil
	})
}

// submission gives a spec its ID, but for one with a key: its ID depends on who
// submits, which only the daemon knows.
func submission(spec job.Spec) job.Submission {
	s := job.Submission{Schema: job.Schema, Spec: spec}
	if spec.Key == "" {
		s.ID = job.NewID()
	}
	return s
}

// report prints what became of one submission; where tells it from others.
func (c *submitCmd) report(reply control.SubmitReply, where string) error {
	if reply.Warning != "" {
		c.say("%s%s: %s", where, reply.ID, reply.Warning)
	}
	if !reply.Created {
		c.say("%s%s had been submitted before and is %s", where, reply.ID, reply.State)
	}
	if c.json {
		return c.printLine(reply)
	}
	return c.printf("%s\n", reply.ID)
}

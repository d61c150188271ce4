// Program gpuq-cluster runs a whole gpuqd on this machine: it is behind make up,
// make down and make status. See package gpuqd/test/cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"gpuqd/test/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := command().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "gpuq-cluster:", err)
		os.Exit(1)
	}
}

// place says where the cluster and the programs are.
type place struct {
	dir string // of the cluster
	bin string // of the programs
}

func command() *cobra.Command {
	var at place
	root := &cobra.Command{
		Use:           "gpuq-cluster",
		Short:         "A gpuqd cluster on this machine",
		Long:          "Runs RabbitMQ, Redis, the ledger and three gpuqd daemons as ordinary processes\nof this machine, all below one directory, and keeps them running.",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			for _, path := range []*string{&at.dir, &at.bin} {
				absolute, err := filepath.Abs(*path)
				if err != nil {
					return err
				}
				*path = absolute
			}
			return nil
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&at.dir, "dir", ".gpuq", "the cluster's directory")
	root.PersistentFlags().StringVar(&at.bin, "bin", "bin", "where the programs are")
	root.AddCommand(upCommand(&at), superviseCommand(&at), downCommand(&at), statusCommand(&at), logsCommand(&at))
	for _, verb := range []struct {
		verb  cluster.Verb
		short string
	}{
		{cluster.VerbKill, "End a server or daemon with SIGKILL; it is started again"},
		{cluster.VerbKillHost, "Make a worker a dead host: its daemon and jobs are killed, and it is kept down"},
		{cluster.VerbKeepDown, "End a server or daemon in order and keep it down; jobs run on"},
		{cluster.VerbStart, "Start what is kept down"},
	} {
		root.AddCommand(unitCommand(&at, verb.verb, verb.short))
	}
	return root
}

// unitCommand is a verb that takes the name of one server or daemon.
func unitCommand(at *place, verb cluster.Verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: string(verb) + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := cluster.Ask(cmd.Context(), at.dir, cluster.Request{Verb: verb, Name: args[0]}, nil)
			return err
		},
	}
}

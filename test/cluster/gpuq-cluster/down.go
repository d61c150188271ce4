package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gpuqd/test/cluster"
)

// askTimeout bounds the wait for a supervisor; one that hangs is killed.
const askTimeout = time.Minute

func downCommand(at *place) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the cluster and its jobs, and remove its files", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(at.dir); errors.Is(err, os.ErrNotExist) {
				fmt.Println("no cluster is here: nothing to do")
				return nil
			}
			unlock, err := cluster.Lock(at.dir)
			if err != nil {
				return err
			}
			defer unlock()
			began := time.Now()
			ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
			defer cancel()
			_, err = cluster.Ask(ctx, at.dir, cluster.Request{Verb: cluster.VerbDown}, nil)
			if err != nil && !errors.Is(err, cluster.ErrNoSupervisor) {
				// Remove ends what runs, with or without its help.
				fmt.Fprintln(os.Stderr, "gpuq-cluster:", err)
			}
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			if err := cluster.Remove(at.dir); err != nil {
				return err
			}
			fmt.Printf("the cluster is down and %s is removed, after %.1f s\n", at.dir, time.Since(began).Seconds())
			return nil
		},
	}
}

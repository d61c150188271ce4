package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"gpuqd/test/cluster"
)

func logsCommand(at *place) *cobra.Command {
	return &cobra.Command{
		Use: "logs NAME", Short: "Print the log of a server or daemon, or of the supervisor", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(cluster.LogPath(at.dir, args[0]))
			if err != nil {
				return fmt.Errorf("%q has no log here: make status names what runs: %w", args[0], err)
			}
			defer file.Close()
			if _, err := io.Copy(os.Stdout, file); err != nil {
				return err
			}
			return printJournal(cmd.Context(), cluster.JournalPath(at.dir, args[0]))
		},
	}
}

// printJournal prints what the daemon of a cluster that is watched has logged to
// journald; other logs are all in their file.
func printJournal(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	show := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--output=short-iso-precise", "--directory="+dir, "SYSLOG_IDENTIFIER=gpuqd")
	show.Stdout, show.Stderr = os.Stdout, os.Stderr
	if err := show.Run(); err != nil {
		return fmt.Errorf("show the journal in %s: %w", dir, err)
	}
	return nil
}

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"gpuqd/test/cluster"
)

func logsCommand(at *place) *cobra.Command {
	return &cobra.Command{
		Use: "logs NAME", Short: "Print the log of a server or daemon, or of the supervisor", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := os.Open(cluster.LogPath(at.dir, args[0]))
			if err != nil {
				return fmt.Errorf("%q has no log here: make status names what runs: %w", args[0], err)
			}
			defer file.Close()
			_, err = io.Copy(os.Stdout, file)
			return err
		},
	}
}

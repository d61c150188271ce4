package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gpuqd/test/cluster"
	"gpuqd/test/cluster/supervisor"
)

func statusCommand(at *place) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := cluster.Ask(cmd.Context(), at.dir, cluster.Request{Verb: cluster.VerbStatus}, nil)
			if err != nil {
				return err
			}
			if err := writeTable(os.Stdout, reply.Units, time.Now()); err != nil {
				return err
			}
			fmt.Printf("\nledger: %s\n", reply.Ledger)
			return nil
		},
	}
}

// writeTable writes one line per server and daemon.
func writeTable(to io.Writer, units []supervisor.Status, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tSINCE\tPID\tPORT\tRESTARTS\tPROBLEM")
	for _, u := range units {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", u.Name, u.Phase, now.Sub(u.Since).Round(time.Second),
			orDash(u.Pid), orDash(u.Port), u.Restarts, orNone(u.Problem))
	}
	return w.Flush()
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

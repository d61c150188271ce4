package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

// verbs are the commands, in the order of the help.
var verbs = []func(*app) *cobra.Command{
	newSubmit, newList, newShow, newWhy, newLogs, newWait, newHold, newRelease, newKill,
	newHosts, newDevices, newDrain, newResume,
	newDead, newEvents, newDoctor, newSimulate, newConfig, newCompletion, newVersion,
}

// groups are the sections of the help, and the verbs in them; a verb that is in
// none stands in the last.
var groups = []struct {
	title string
	verbs []string
}{
	{"Jobs:", []string{"submit", "list", "show", "why", "logs", "wait", "hold", "release", "kill"}},
	{"Hosts and devices:", []string{"hosts", "devices", "drain", "resume"}},
	{"Running the queue:", nil},
}

// app is one run of gpuqctl: where it reads and writes, and whom it asks.
type app struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	width    int  // columns of the terminal that out is; 0 when it is none
	terminal bool // out is a terminal
	asks     bool // in is a terminal, so that a person can be asked

	patience time.Duration // of logs -f with a host that does not answer

	// Flags of every verb.
	configPath string
	sockets    []string
	timeout    time.Duration
	colour     colourFlag

	client *control.Client // from connect; nil before
}

// run carries out one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.client != nil {
		a.client.Close()
	}
	var exit *exitError
	if err != nil && (!errors.As(err, &exit) || exit.err != nil) {
		a.say("%v", err)
	}
	return exitCode(ctx, err)
}

func (a *app) root() *cobra.Command {
	cobra.EnableCommandSorting = false // the order of verbs is that of a job's life
	root := &cobra.Command{
		Use:   "gpuqctl",
		Short: "Submit GPU jobs to gpuqd, and see and steer what becomes of them",
		Long: `gpuqctl submits GPU jobs to gpuqd, and shows and steers what becomes of them.

It asks the gpuqd of this machine over its Unix socket, or any gpuqd through the
broker. The settings come from --config, else $GPUQCTL_CONFIG, else
~/.config/gpuqctl.toml, else ` + config.ClientPathSystem + `.

Results go to stdout and all else to stderr. On a terminal, tables are cut to its
width, and leave out what they can do without; in a pipe everything is there.
Ctrl-C lets a request that is under way finish; a second one ends gpuqctl at once.

` + exitCodesHelp(),
		Example: `  gpuqctl submit --gpus 1 --name train -- python train.py
  gpuqctl submit --wait -- ./train.sh && echo trained
  gpuqctl list --state queued,running
  gpuqctl why 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl logs -f 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl drain gpu7 --reason "row remap pending" --wait`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w: see %s --help", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "read the settings from this `file`")
	flags.StringArrayVar(&a.sockets, "socket", nil, "ask the gpuqd at this `path`, and no other way; may be repeated")
	flags.DurationVar(&a.timeout, "timeout", control.PatienceDefault, "how long verbs that change something repeat a request that nobody has answered")
	a.colour = colourAuto
	flags.Var(&a.colour, "color", "auto, always or never; auto is on a terminal, unless NO_COLOR is set")
	_ = root.RegisterFlagCompletionFunc("color", fixed(string(colourAuto), string(colourAlways), string(colourNever)))
	root.CompletionOptions.DisableDefaultCmd = true
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
	}
	last := groups[len(groups)-1].title
	root.SetHelpCommandGroupID(last)
	for _, verb := range verbs {
		cmd := verb(a)
		cmd.GroupID = last
		for _, g := range groups {
			if slices.Contains(g.verbs, cmd.Name()) {
				cmd.GroupID = g.title
			}
		}
		root.AddCommand(cmd)
	}
	return root
}

// family makes a command of which only the subcommands do something.
func family(cmd *cobra.Command, members ...*cobra.Command) *cobra.Command {
	cmd.Args = knownVerb
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(members...)
	return cmd
}

// knownVerb refuses what cobra has found no command for.
func knownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("%q is no verb: did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return usagef("%q is no verb: see %s --help", args[0], cmd.CommandPath())
}

// connect returns the client, made at the first call.
func (a *app) connect() (*control.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	cfg := config.Client{Sockets: a.sockets}
	if len(a.sockets) == 0 {
		var err error
		if cfg, err = config.LoadClient(a.configPath); err != nil {
			return nil, err
		}
	}
	a.client = control.Dial(cfg)
	a.client.Patience = a.timeout
	a.client.Notice = func(text string) { a.say("%s", text) }
	return a.client, nil
}

// say tells the person something that is no result.
func (a *app) say(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(a.err, "gpuqctl: %s\n", clean(strings.TrimSuffix(line, "\n")))
	}
}

// printf writes a result. A reader that has gone ends the program by SIGPIPE.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// printJSON writes one value, indented.
func (a *app) printJSON(v any) error { return a.encode(v, "  ") }

// orEmpty makes an empty list [] in JSON, never null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// printLine writes one value on a line of its own, for streams of them.
func (a *app) printLine(v any) error { return a.encode(v, "") }

func (a *app) encode(v any, indent string) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// noArgs is cobra.NoArgs with our exit code.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, but was given %q: see %s --help", cmd.Name(), args[0], cmd.CommandPath())
	}
	return nil
}

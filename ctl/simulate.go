package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type simulateCmd struct {
	*app
	host     string
	scenario string
	moment   string
	yes      bool
	length   time.Duration
	within   time.Duration
	lang     string
	json     bool
	wedge    string // loop; docs/simulate.md

	text    *simulateText
	answers *bufio.Reader // what the person types
}

func newSimulate(a *app) *cobra.Command {
	c := &simulateCmd{app: a}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Rehearse a fault at a host, and see that no job is lost or doubled",
		Long: `Simulate plays a fault with a small job of its own, on the real path: submitted,
delivered, claimed, run under a shim, committed and acked. It says what will
happen, asks before it does it, shows it happening from the job's history, the
payload's own witness and what the host's daemon saw, and ends with a verdict:
lost, doubled, recovered in so many seconds. Without --host and --scenario it
asks for them.

  0  normal: no fault
  1  an error during the job: its first attempt exits 1 and is retried
  2  the worker dies mid-job: its gpuqd and the job's processes are killed
  3  the ack is lost after the commit, with its connection: a duplicate delivery
  4  the worker dies after the work, before the ack

Scenarios 2 and 4 kill the gpuqd of that host, whose service manager starts it
again; other jobs there run on. Only hosts whose gpuqd.toml says allowed = true
below [simulate] take part, and only operators may ask.

The verdict is good, and the exit code 0, only if the job ended well, once, its
fault did strike, and the host is back. The language is that of LC_ALL,
LC_MESSAGES or LANG: English or Korean.`,
		Example: `  gpuqctl simulate
  gpuqctl simulate --host worker_3 --scenario 2 --yes
  gpuqctl simulate --host worker_3 --scenario all --yes --json | jq .recovered_seconds
  gpuqctl simulate --lang ko`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&c.host, "host", "", "the host to rehearse at (default: ask)")
	flags.StringVar(&c.scenario, "scenario", "", "0 to 4, or all (default: ask)")
	flags.StringVar(&c.moment, "moment", string(control.MomentExit), "of scenario 4: the worker dies before the commit (exit) or after it (commit)")
	flags.BoolVarP(&c.yes, "yes", "y", false, "do not ask before it begins")
	flags.DurationVar(&c.length, "length", 3*time.Second, "how long one attempt of the payload takes")
	flags.DurationVar(&c.within, "within", 10*time.Minute, "the job counts as lost if it has not ended by then")
	flags.StringVar(&c.lang, "lang", "", "en or ko (default: by the locale)")
	flags.BoolVar(&c.json, "json", false, "print one object per rehearsal on stdout, and the story on stderr")
	flags.StringVar(&c.wedge, "wedge", "", "make this loop of the host's daemon block for good, and do nothing else")
	_ = flags.MarkHidden("wedge") // for tests of the watchdog, not for people
	_ = cmd.RegisterFlagCompletionFunc("host", a.complete(hostNames))
	_ = cmd.RegisterFlagCompletionFunc("scenario", fixed("0", "1", "2", "3", "4", "all"))
	_ = cmd.RegisterFlagCompletionFunc("moment", fixed(string(control.MomentExit), string(control.MomentCommit)))
	_ = cmd.RegisterFlagCompletionFunc("lang", fixed("en", "ko"))
	cmd.AddCommand(newSimulateDevice(a))
	return cmd
}

// scenariosAll lists every scenario.
var scenariosAll = []control.Scenario{
	control.ScenarioNormal, control.ScenarioError, control.ScenarioMidJob, control.ScenarioAckLost, control.ScenarioLate,
}

func (c *simulateCmd) run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	c.answers = bufio.NewReader(c.in)
	client, err := c.connect()
	if err != nil {
		return err
	}
	if c.wedge != "" {
		return c.wedgeLoop(ctx, client)
	}
	host, err := c.chooseHost(ctx, client)
	if err != nil {
		return err
	}
	// The host itself says whether it takes part, before anything is promised.
	if _, err := client.Simulate(ctx, control.SimulateArgs{Action: control.SimulateStatus, Host: host, Job: job.NewID()}); err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	scenarios, err := c.chooseScenarios(ctx)
	if err != nil {
		return err
	}
	good := true
	for _, s := range scenarios {
		v, err := c.rehearse(ctx, client, host, s)
		if err != nil {
			return err
		}
		if c.json {
			if err := c.printLine(v); err != nil {
				return err
			}
		}
		good = good && v.Good
	}
	if !good {
		return &exitError{code: exitFailure}
	}
	return nil
}

// wedgeLoop leaves a stuck daemon behind, for its watchdog to find.
func (c *simulateCmd) wedgeLoop(ctx context.Context, client *control.Client) error {
	_, err := client.Simulate(ctx, control.SimulateArgs{Action: control.SimulateWedge, Host: c.host, Loop: c.wedge})
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	return nil
}

// check settles the flags.
func (c *simulateCmd) check() error {
	var err error
	if c.text, err = textFor(c.lang); err != nil {
		return err
	}
	if c.scenario != "" {
		if _, err := parseScenarios(c.scenario); err != nil {
			return usagef("--scenario: %w", err)
		}
	}
	switch control.SimulateMoment(c.moment) {
	case control.MomentExit, control.MomentCommit:
	default:
		return usagef("--moment: %q is neither exit nor commit", c.moment)
	}
	if c.wedge != "" && (c.host == "" || !c.yes) {
		return usagef("--wedge: name the host with --host, and confirm with --yes")
	}
	if c.length < rehearsalLengthMin || c.length > rehearsalLengthMax {
		return usagef("--length: %s is not between %s and %s", c.length, rehearsalLengthMin, rehearsalLengthMax)
	}
	if c.within < c.length {
		return usagef("--within: %s is less than one attempt takes (--length %s)", c.within, c.length)
	}
	return nil
}

func parseScenarios(text string) ([]control.Scenario, error) {
	if text == "all" {
		return scenariosAll, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > int(control.ScenarioMax) {
		return nil, fmt.Errorf("%q is none of 0 to %d, and not all", text, control.ScenarioMax)
	}
	return []control.Scenario{control.Scenario(n)}, nil
}

// rehearses reports whether a host can take part now.
func rehearses(h control.HostRow) bool {
	return h.Live && slices.Contains(h.Pools, job.RehearsalPool(h.Name))
}

// chooseHost returns the host that was named, or the one that the person chooses
// among those that can take part.
func (c *simulateCmd) chooseHost(ctx context.Context, client *control.Client) (string, error) {
	if c.host != "" {
		return c.host, nil
	}
	reply, err := client.Hosts(ctx)
	if err != nil {
		return "", fmt.Errorf("simulate: %w", err)
	}
	hosts := slices.DeleteFunc(reply.Hosts, func(h control.HostRow) bool { return !rehearses(h) })
	if len(hosts) == 0 {
		return "", &exitError{code: exitConflict, err: errors.New(c.text.noHosts)}
	}
	c.ask("%s\n", c.text.hosts)
	for i, h := range hosts {
		c.ask("  %d) %s\n", i+1, fmt.Sprintf(c.text.hostLine, h.Name, h.DevicesFree, h.DevicesTotal, h.Running))
	}
	for {
		answer, err := c.answer(ctx, c.text.whichHost, "--host")
		if err != nil {
			return "", err
		}
		if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(hosts) {
			return hosts[n-1].Name, nil
		}
		for _, h := range hosts {
			if h.Name == answer {
				return h.Name, nil
			}
		}
		c.ask(c.text.notInList+"\n", answer)
	}
}

// chooseScenarios returns what was named, or what the person chooses.
func (c *simulateCmd) chooseScenarios(ctx context.Context) ([]control.Scenario, error) {
	if c.scenario != "" {
		return parseScenarios(c.scenario)
	}
	c.ask("%s\n", c.text.scenarios)
	for _, s := range scenariosAll {
		c.ask("  %d) %s\n", s, c.text.scenario[s].name)
	}
	c.ask("  all) %s\n", c.text.all)
	for {
		answer, err := c.answer(ctx, c.text.whichScenario, "--scenario")
		if err != nil {
			return nil, err
		}
		list, err := parseScenarios(answer)
		if err == nil {
			return list, nil
		}
		c.ask(c.text.notInList+"\n", answer)
	}
}

// explain says what will happen, and asks whether it may.
func (c *simulateCmd) explain(ctx context.Context, host string, s control.Scenario) error {
	story := c.text.scenario[s]
	c.tell(bold, c.text.title, int(s), host, story.name)
	steps := story.steps
	if s == control.ScenarioLate && control.SimulateMoment(c.moment) == control.MomentCommit {
		steps = c.text.lateCommit
	}
	c.tell(plain, "%s", c.text.willHappen)
	for i, step := range steps {
		c.tell(plain, "  %d. %s", i+1, strings.ReplaceAll(step, "{host}", host))
	}
	if c.yes {
		return nil
	}
	answer, err := c.answer(ctx, c.text.goOn, "--yes")
	if err != nil {
		return err
	}
	if !slices.Contains(c.text.yesWords, strings.ToLower(answer)) {
		return &exitError{code: exitInterrupted, err: errors.New(c.text.notDone)}
	}
	return nil
}

// ask writes to the person, beside the results.
func (c *simulateCmd) ask(format string, args ...any) { fmt.Fprintf(c.err, format, args...) }

// answer asks one question, or says which flag would have answered it.
func (c *simulateCmd) answer(ctx context.Context, question, flag string) (string, error) {
	c.ask("%s ", question)
	type typed struct {
		line string
		err  error
	}
	line := make(chan typed, 1)
	go func() { // a terminal cannot be waited for in any other way
		text, err := c.answers.ReadString('\n')
		line <- typed{text, err}
	}()
	select {
	case t := <-line:
		text := strings.TrimSpace(t.line)
		if t.err != nil && text == "" {
			c.ask("\n")
			if errors.Is(t.err, io.EOF) {
				return "", usagef("nobody answers on stdin: give %s", flag)
			}
			return "", t.err
		}
		return text, nil
	case <-ctx.Done():
		c.ask("\n")
		return "", &exitError{code: exitInterrupted, err: errors.New(c.text.notDone)}
	}
}

// tell writes a line of the story: on stdout, but with --json beside it.
func (c *simulateCmd) tell(s style, format string, args ...any) {
	text := clean(fmt.Sprintf(format, args...))
	if c.json {
		fmt.Fprintln(c.err, text)
		return
	}
	fmt.Fprintln(c.out, c.paint(s, text))
}

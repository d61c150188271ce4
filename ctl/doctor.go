package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

type doctorCmd struct {
	*app
	local, all, strict, json bool
}

func newDoctor(a *app) *cobra.Command {
	c := &doctorCmd{app: a}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that gpuqd needs, and say what to do",
		Long: `Doctor asks every live host to look at what it needs: the broker and its queues,
Redis, the ledger, the clocks, disks, devices, and the daemon itself. It shows how
many checks ended how, then each that is not ok, with what was seen and what to do.
It changes nothing. docs/doctor.md explains each check.

  ok       fine
  warn     works, and will not under some failure or load
  fail     does not work, or breaks a promise
  unknown  could not be looked at, with how it can

It works while brokers, Redis or the ledger are down, over the socket of a local
gpuqd; without any daemon it says what it can see itself. As root on a RabbitMQ node
it asks rabbitmqctl what AMQP does not tell, where no daemon is set up to.

Exit codes: 0 if nothing fails, 1 if something does, with --strict also if a check
ended in warn or unknown.`,
		Example: `  gpuqctl doctor
  gpuqctl doctor --all
  gpuqctl doctor --json | jq -r '.[] | select(.state == "fail") | .advice'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&c.local, "local", false, "ask only the daemon that answers, not every host")
	flags.BoolVar(&c.all, "all", false, "show every check, not only those that are not ok")
	flags.BoolVar(&c.strict, "strict", false, "exit 1 also for warnings and for what could not be looked at")
	flags.BoolVar(&c.json, "json", false, "print one array of objects")
	return cmd
}

func (c *doctorCmd) run(ctx context.Context) error {
	findings, err := c.look(ctx)
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(orEmpty(findings))
	} else {
		err = c.report(findings)
	}
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.State == control.FindingFail || c.strict && f.State != control.FindingOK {
			return &exitError{code: exitFailure}
		}
	}
	return nil
}

// look asks the daemons; where none answers, it looks itself.
func (c *doctorCmd) look(ctx context.Context) ([]control.Finding, error) {
	client, err := c.connect()
	if err != nil {
		return c.lookAlone(err), nil // the settings are what is wrong
	}
	reply, err := client.Doctor(ctx, control.DoctorArgs{Local: c.local})
	switch {
	case err == nil:
		return c.settleRabbit(ctx, reply.Findings), nil
	case ctx.Err() == nil && errors.Is(err, control.ErrUnavailable):
		return c.lookAlone(err), nil
	}
	return nil, fmt.Errorf("doctor: %w", err)
}

// rabbitTimeout bounds four runs of rabbitmqctl.
const rabbitTimeout = 30 * time.Second

// settleRabbit asks the rabbitmqctl of this machine, where no daemon may run one
// and the caller may.
func (c *doctorCmd) settleRabbit(ctx context.Context, findings []control.Finding) []control.Finding {
	if !slices.ContainsFunc(findings, control.NeedsRabbitmqctl) || !mayRunRabbitmqctl() {
		return findings
	}
	ctx, cancel := context.WithTimeout(ctx, rabbitTimeout)
	defer cancel()
	found := map[string]control.Finding{}
	for _, f := range control.AskRabbitmqctl(ctx, noEpmd) {
		found[f.Check] = f
	}
	for i, f := range findings {
		if own, ok := found[f.Check]; ok && control.NeedsRabbitmqctl(f) && own.State != control.FindingUnknown {
			findings[i] = own
		}
	}
	return findings
}

const rabbitmqctl = "rabbitmqctl"

// noEpmd runs it so that it starts no name server where none is: one would stay.
var noEpmd = []string{"env", "ERL_AFLAGS=-start_epmd false", rabbitmqctl}

// mayRunRabbitmqctl reports whether RabbitMQ's tool is here and the caller is one
// whom it obeys.
func mayRunRabbitmqctl() bool {
	if _, err := exec.LookPath(rabbitmqctl); err != nil {
		return false
	}
	if os.Geteuid() == 0 {
		return true
	}
	account, err := user.Lookup("rabbitmq")
	return err == nil && account.Uid == strconv.Itoa(os.Geteuid())
}

// findingStates are the states in the order of the summary, with their style.
var findingStates = []struct {
	state control.FindingState
	style style
}{
	{control.FindingOK, good},
	{control.FindingWarn, middle},
	{control.FindingFail, bad},
	{control.FindingUnknown, middle},
}

// report prints the summary, then the findings that are worth reading.
func (c *doctorCmd) report(findings []control.Finding) error {
	groups := gather(findings)
	if err := c.printTable(c.summary(findings)); err != nil {
		return err
	}
	for _, g := range groups {
		if g.State == control.FindingOK && !c.all {
			continue
		}
		if err := c.printf("\n%s", c.detail(g)); err != nil {
			return err
		}
	}
	if c.all || !slices.ContainsFunc(findings, func(f control.Finding) bool { return f.State != control.FindingOK }) {
		return nil
	}
	c.say("--all shows the checks that are ok, too; docs/doctor.md explains each")
	return nil
}

// summary counts the findings by part and state.
func (c *doctorCmd) summary(findings []control.Finding) *table {
	t := newTable("PART", "OK", "WARN", "FAIL", "UNKNOWN").alignRight("OK", "WARN", "FAIL", "UNKNOWN")
	var parts []string
	count := map[string]map[control.FindingState]int{}
	for _, f := range findings {
		if count[f.Part] == nil {
			parts = append(parts, f.Part)
			count[f.Part] = map[control.FindingState]int{}
		}
		count[f.Part][f.State]++
	}
	for _, part := range parts {
		row := []string{part}
		for _, s := range findingStates {
			row = append(row, strconv.Itoa(count[part][s.state]))
		}
		t.add(row...)
		for _, s := range findingStates {
			if count[part][s.state] > 0 {
				t.style(strings.ToUpper(string(s.state)), s.style)
			}
		}
	}
	return t
}

// seen is a finding with all hosts that came to it.
type seen struct {
	control.Finding
	hosts []string
}

// gather joins what several hosts saw alike, and keeps the order.
func gather(findings []control.Finding) []seen {
	var list []seen
	for _, f := range findings {
		i := slices.IndexFunc(list, func(s seen) bool {
			return s.Part == f.Part && s.Check == f.Check && s.State == f.State && s.Saw == f.Saw
		})
		if i < 0 {
			list, i = append(list, seen{Finding: f}), len(list)
		}
		if f.Host != "" {
			list[i].hosts = append(list[i].hosts, f.Host)
		}
	}
	return list
}

// detail writes one finding: its head, what was seen, and what to do.
func (c *doctorCmd) detail(s seen) string {
	head := fmt.Sprintf("%s: %s", s.Part, s.Check)
	if len(s.hosts) > 0 {
		head += " (on " + strings.Join(s.hosts, ", ") + ")"
	}
	state := string(s.State)
	for _, known := range findingStates {
		if known.state == s.State {
			state = c.paint(known.style, state)
		}
	}
	text := state + "  " + clean(head) + "\n" + fold(clean(s.Saw), "  ", c.width)
	if s.Advice != "" {
		text += fold(c.arrow(clean(s.Advice)), "  ", c.width)
	}
	return text
}

// arrow marks what is to be done.
func (c *doctorCmd) arrow(advice string) string { return "→ " + advice }

// fold breaks text at blanks so that it fits the columns of a terminal, 0 for
// none, and indents each line.
func fold(text, indent string, columns int) string {
	if columns <= 0 {
		return indent + text + "\n"
	}
	var b strings.Builder
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && displayWidth(indent+line+" "+word) > columns {
			b.WriteString(indent + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	b.WriteString(indent + line + "\n")
	return b.String()
}

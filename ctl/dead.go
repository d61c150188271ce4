package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

func newDead(a *app) *cobra.Command {
	return family(&cobra.Command{
		Use:   "dead",
		Short: "See to messages and jobs that were set aside",
		Long: `Dead is what gpuqd has given up on: messages that no daemon could use, such as one
that is no JSON, and jobs that ended dead because they expired, were refused, or
took hosts down. Each has its reason. You see your own; operators see all.`,
		Example: `  gpuqctl dead list
  gpuqctl dead show 5f2a9c01b3d4e6f7
  gpuqctl dead requeue 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl dead purge --older-than 30d`,
	}, newDeadList(a), newDeadShow(a), newDeadRequeue(a), newDeadPurge(a))
}

type deadListCmd struct {
	*app
	limit int
	json  bool
}

func newDeadList(a *app) *cobra.Command {
	c := &deadListCmd{app: a}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what was set aside, the newest first",
		Long: `List shows messages and jobs that were set aside, the newest first. The ID of a
message is the beginning of its content's hash, that of a job its UUID.`,
		Example: `  gpuqctl dead list
  gpuqctl dead list --json | jq -r '.[] | select(.kind == "job").id'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	cmd.Flags().IntVar(&c.limit, "limit", control.RowsDefault, fmt.Sprintf("at most so many, up to %d", control.RowsMax))
	cmd.Flags().BoolVar(&c.json, "json", false, "print one array of objects")
	return cmd
}

func (c *deadListCmd) run(ctx context.Context) error {
	if err := checkLimit(c.limit); err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.DeadList(ctx, control.DeadArgs{Limit: c.limit})
	if err != nil {
		return fmt.Errorf("dead list: %w", err)
	}
	if reply.More {
		c.say("there are more than %d: raise --limit, or purge what is old", len(reply.Dead))
	}
	if c.json {
		return c.printJSON(orEmpty(reply.Dead))
	}
	if len(reply.Dead) == 0 {
		c.say("nothing is dead")
		return nil
	}
	t := newTable("ID", "KIND", "AGE", "USER", "QUEUE", "SIZE", "REASON").alignRight("SIZE").
		mayCut("USER", "QUEUE", "REASON").mayDrop("QUEUE", "SIZE", "USER")
	for _, d := range reply.Dead {
		bytes := ""
		if d.Kind == control.DeadMessage {
			bytes = size(uint64(max(d.Bytes, 0)))
		}
		t.add(shortDeadID(d), d.Kind, age(c.now(), d.At), d.User, d.Queue, bytes, d.Reason)
	}
	return c.printTable(t)
}

// deadIDDigits is how much of a message's ID lists show: enough to name it.
const deadIDDigits = 16

func shortDeadID(d control.DeadRow) string {
	if d.Kind == control.DeadMessage && len(d.ID) > deadIDDigits {
		return d.ID[:deadIDDigits]
	}
	return d.ID
}

type deadShowCmd struct {
	*app
	body bool
	json bool
}

func newDeadShow(a *app) *cobra.Command {
	c := &deadShowCmd{app: a}
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one message or job that was set aside",
		Long: `Show prints why a message or job was set aside, where it came from, and what it
says. A message is named by its ID or eight digits of its beginning. --body prints
what was kept of a message and nothing else, byte by byte.`,
		Example: `  gpuqctl dead show 5f2a9c01b3d4e6f7
  gpuqctl dead show --body 5f2a9c01b3d4e6f7 > message.json`,
		ValidArgsFunction: a.completeOne(deadIDs("")),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&c.body, "body", false, "print the message's body alone, as it came")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one object; the body is in base64")
	return cmd
}

func (c *deadShowCmd) run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return usagef("want one ID, as gpuqctl dead list shows it, but %d are given", len(args))
	}
	if c.body && c.json {
		return usagef("--body and --json do not go together")
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	d, err := client.DeadShow(ctx, args[0])
	switch {
	case err != nil:
		return fmt.Errorf("dead show: %w", err)
	case c.json:
		return c.printJSON(d)
	case c.body && d.Kind != control.DeadMessage:
		return usagef("%s is a job and has no body: gpuqctl show %s shows it", d.ID, d.ID)
	case c.body:
		if d.Cut {
			c.say("only the first %s of %s were kept", size(uint64(len(d.Body))), size(uint64(max(d.Bytes, 0))))
		}
		_, err := c.out.Write(d.Body)
		return err
	}
	return c.printf("%s", c.text(d))
}

func (c *deadShowCmd) text(d control.DeadShowReply) string {
	if d.Job != nil {
		return c.jobText(d.Job)
	}
	s := sheet{colours: c.colours()}
	s.line("ID", "%s", d.ID)
	s.line("Set aside", "%s", c.moment(d.At))
	s.mark("Reason", d.Reason, bad)
	s.line("User", "%s", d.User)
	s.line("Queue", "%s", d.Queue)
	s.line("Recorded by", "%s", d.Host)
	s.line("Message ID", "%s", d.MessageID)
	kept := ""
	if d.Cut {
		kept = fmt.Sprintf(", of which %s were kept", size(uint64(len(d.Body))))
	}
	s.line("Size", "%s%s", size(uint64(max(d.Bytes, 0))), kept)
	if len(d.Body) > 0 {
		s.WriteString("\n" + bodyText(d.Body))
	}
	return s.String()
}

// bodyText returns a message's body so that a terminal can take it: JSON indented,
// other text line by line, and anything else as Go writes a string.
func bodyText(body []byte) string {
	var b bytes.Buffer
	switch {
	case json.Indent(&b, body, "", "  ") == nil:
	case utf8.Valid(body):
		b.Reset()
		b.Write(body)
	default:
		b.Reset()
		fmt.Fprintf(&b, "%q", body)
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(clean(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return out.String()
}

package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gpuqd/daemon/health"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// Names of the checks that only RabbitMQ's own tool can answer, since AMQP does
// not tell.
const (
	CheckMembers         = "members"
	CheckAlarms          = "alarms"
	CheckConsumerTimeout = "consumer_timeout"
	CheckQuorum          = "quorum"
)

// CtlNotSet is what these checks saw where no command is configured.
const CtlNotSet = "AMQP does not tell"

// CtlChecks lists them.
var CtlChecks = []string{CheckMembers, CheckAlarms, CheckConsumerTimeout, CheckQuorum}

// CtlInspection says how to ask the tool, and against what to hold its answers.
type CtlInspection struct {
	Command   []string // how rabbitmqctl is run, without a subcommand
	Vhost     string   // "" is "/"
	Nodes     int      // how many broker.urls names; 0 where nobody knows
	TimeLimit time.Duration
	// Unlimited means that attempts run without a time limit; else TimeLimit is
	// the longest of those that are known.
	Unlimited bool
}

// Nodes returns how many nodes are configured.
func (c *Client) Nodes() int { return len(c.dialer.endpoints) }

// Vhost returns the vhost that the client uses.
func (c *Client) Vhost() string {
	for _, e := range c.dialer.endpoints {
		if uri, err := amqp.ParseURI(e.url); err == nil {
			return uri.Vhost
		}
	}
	return "/"
}

// InspectCtl asks rabbitmqctl what AMQP does not tell. Each question boots an
// Erlang VM: it takes seconds. A question that is not answered is unknown, with
// how to find out.
func InspectCtl(ctx context.Context, o CtlInspection) []health.Check {
	if o.Vhost == "" {
		o.Vhost = "/"
	}
	if len(o.Command) == 0 {
		return unknownCtl(CtlNotSet, "set broker.rabbitmqctl in gpuqd.toml, or run gpuqctl doctor as root on a RabbitMQ node")
	}
	var cluster, queues, status, timeouts ctlAnswer
	var group errgroup.Group
	group.SetLimit(3) // each is an Erlang VM
	for _, q := range []struct {
		into *ctlAnswer
		args []string
	}{
		{&cluster, []string{"cluster_status", "--formatter", "json"}},
		{&queues, []string{"list_queues", "-p", o.Vhost, "--formatter", "json", "--timeout", "10", "name", "type", "members", "online", "leader"}},
		{&timeouts, []string{"eval", timeoutsCode}},
		{&status, []string{"status", "--formatter", "json"}},
	} {
		group.Go(func() error {
			*q.into = askCtl(ctx, o.Command, q.args)
			return nil
		})
	}
	_ = group.Wait() // its functions return none
	return []health.Check{judgeMembers(cluster, o.Nodes), judgeAlarms(cluster, status), judgeTimeouts(timeouts, o), judgeQuorum(queues)}
}

func unknownCtl(saw, advice string) []health.Check {
	var checks []health.Check
	for _, name := range CtlChecks {
		checks = append(checks, health.Bad(name, health.Unknown, advice+"; "+byHand[name], "%s", saw))
	}
	return checks
}

// byHand says how a person finds out, per check.
var byHand = map[string]string{
	CheckMembers:         "by hand: rabbitmqctl cluster_status, sections Running Nodes and Network Partitions",
	CheckAlarms:          "by hand: rabbitmqctl status, sections Alarms, Memory and Free Disk Space, on each node",
	CheckConsumerTimeout: "by hand: rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).' on each node, in ms",
	CheckQuorum:          "by hand: rabbitmqctl list_queues name members online",
}

// timeoutsCode asks each running node for its consumer_timeout.
const timeoutsCode = "[{N, rpc:call(N, application, get_env, [rabbit, consumer_timeout])} || N <- rabbit_nodes:all_running()]."

// ctlAnswer is what one run of the tool printed.
type ctlAnswer struct {
	out []byte
	err error
}

// ctlOutputMax bounds what is read of one answer, in bytes.
const ctlOutputMax = 8 << 20

// askCtl runs the tool in a process group of its own, which ends with ctx.
func askCtl(ctx context.Context, command, args []string) ctlAnswer {
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for pipes that a process of another user holds
	out := &headBuffer{most: ctlOutputMax}
	problem := &headBuffer{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, problem
	err := cmd.Run()
	switch {
	case err == nil:
		return ctlAnswer{out: out.Bytes()}
	case ctx.Err() != nil:
		return ctlAnswer{err: errors.New("rabbitmqctl did not answer in time")}
	}
	return ctlAnswer{err: fmt.Errorf("rabbitmqctl %s: %w: %s", args[0], err, firstLine(problem.String()+"\n"+out.String()))}
}

// headBuffer keeps the beginning of what is written to it.
type headBuffer struct {
	bytes.Buffer
	most int
}

// Write implements io.Writer; it never fails.
func (b *headBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, b.most-b.Len()))])
	return len(p), nil
}

// firstLine returns the first line that is not empty. The rest of what the tool
// says are hints for its own user.
func firstLine(text string) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return "it says nothing"
}

// decode reads JSON, after whatever the tool, or what runs it, printed before.
func (a ctlAnswer) decode(into any) error {
	if a.err != nil {
		return a.err
	}
	start := bytes.IndexAny(a.out, "{[")
	if start < 0 {
		return fmt.Errorf("rabbitmqctl printed no JSON: %s", firstLine(string(a.out)))
	}
	return json.NewDecoder(bytes.NewReader(a.out[start:])).Decode(into)
}

const ctlAdvice = "see that the command of broker.rabbitmqctl works for the user of gpuqd, and that its node runs; "

func unknown(name string, err error) health.Check {
	return health.Bad(name, health.Unknown, ctlAdvice+byHand[name], "%v", err)
}

// clusterStatus is the part of `cluster_status --formatter json` that is read.
type clusterStatus struct {
	Name       string          `json:"cluster_name"`
	Disk       []string        `json:"disk_nodes"`
	RAM        []string        `json:"ram_nodes"`
	Running    []string        `json:"running_nodes"`
	Partitions json.RawMessage `json:"partitions"` // an object by node; some versions write an empty list
	Alarms     []any           `json:"alarms"`
}

func (s clusterStatus) partitions() map[string][]string {
	byNode := map[string][]string{}
	_ = json.Unmarshal(s.Partitions, &byNode) // a list is an empty one
	return byNode
}

func judgeMembers(a ctlAnswer, configured int) health.Check {
	var s clusterStatus
	if err := a.decode(&s); err != nil {
		return unknown(CheckMembers, err)
	}
	members := append(slices.Clone(s.Disk), s.RAM...)
	saw := fmt.Sprintf("cluster %s: %d of %d members run (%s)", s.Name, len(s.Running), len(members), strings.Join(slices.Sorted(slices.Values(s.Running)), ", "))
	if parts := s.partitions(); len(parts) > 0 {
		return health.Bad(CheckMembers, health.Fail, "mend the network between the nodes, then restart those on the smaller side; set cluster_partition_handling = pause_minority",
			"%s; partitioned: %v", saw, parts)
	}
	if 2*len(s.Running) <= len(members) {
		return health.Bad(CheckMembers, health.Fail, "start the other members: without a majority quorum queues stand still", "%s", saw)
	}
	if len(s.Running) < len(members) {
		return health.Bad(CheckMembers, health.Warn, "start the others, or, if one is gone for good, rabbitmqctl forget_cluster_node it and add a new one", "%s", saw)
	}
	if configured > len(members) {
		return health.Bad(CheckMembers, health.Warn, "join the nodes to one cluster (rabbitmqctl join_cluster), or name each node of one cluster once in broker.urls: "+
			"messages of one cluster are not in another", "%s, and broker.urls names %d", saw, configured)
	}
	return health.Good(CheckMembers, "%s", saw)
}

// nodeStatus is the part of `status --formatter json` that is read.
type nodeStatus struct {
	Alarms    []any `json:"alarms"`
	DiskFree  any   `json:"disk_free"` // a number, or a text such as "NaN" where it is not known
	DiskLimit any   `json:"disk_free_limit"`
	MemLimit  any   `json:"vm_memory_high_watermark_limit"`
	Memory    struct {
		Total    any    `json:"total"` // an object by way of counting; a number in some versions
		Strategy string `json:"strategy"`
	} `json:"memory"`
}

// memoryUsed is what the node compares with its limit, in bytes.
func (s nodeStatus) memoryUsed() float64 {
	if by, ok := s.Memory.Total.(map[string]any); ok {
		n, _ := by[s.Memory.Strategy].(float64)
		return n
	}
	n, _ := s.Memory.Total.(float64)
	return n
}

func judgeAlarms(cluster, status ctlAnswer) health.Check {
	var all clusterStatus
	var one nodeStatus
	if err := errors.Join(cluster.decode(&all), status.decode(&one)); err != nil {
		return unknown(CheckAlarms, err)
	}
	free, freeLimit := number(one.DiskFree), number(one.DiskLimit)
	used, memLimit := one.memoryUsed(), number(one.MemLimit)
	saw := fmt.Sprintf("the node asked has %s of disk free (alarm below %s) and uses %s of memory (alarm above %s)",
		health.Bytes(uint64(free)), health.Bytes(uint64(freeLimit)), health.Bytes(uint64(used)), health.Bytes(uint64(memLimit)))
	if alarms := alarmTexts(append(all.Alarms, one.Alarms...)); len(alarms) > 0 {
		return health.Bad(CheckAlarms, health.Fail, "free disk or memory on that node, or raise its limit in rabbitmq.conf (disk_free_limit, vm_memory_high_watermark): "+
			"until then the whole cluster accepts no messages, and running jobs go on", "%s; %s", strings.Join(alarms, ", "), saw)
	}
	if freeLimit > 0 && free < 2*freeLimit || memLimit > 0 && used > 0.8*memLimit {
		return health.Bad(CheckAlarms, health.Warn, "free disk or memory on that node before the alarm stops all publishing", "no alarm yet; %s", saw)
	}
	return health.Good(CheckAlarms, "no alarm; %s", saw)
}

func number(v any) float64 {
	n, _ := v.(float64)
	return max(n, 0)
}

// alarmTexts writes each alarm once, as "disk on rabbit@a". Alarms that block
// nothing, such as that of file descriptors, are left out.
func alarmTexts(alarms []any) []string {
	var texts []string
	for _, a := range alarms {
		fields, ok := a.(map[string]any)
		if !ok {
			texts = addNew(texts, fmt.Sprint(a))
			continue
		}
		if fields["type"] == "file_descriptor_limit" || fields["resource"] == "file_descriptor_limit" {
			continue
		}
		texts = addNew(texts, fmt.Sprintf("%v alarm on %v", fields["resource"], fields["node"]))
	}
	return texts
}

// consumerTimeoutLeast is what a delivery should at least be allowed to stay
// open: the default of 30 min strikes at every longer job.
const consumerTimeoutLeast = 24 * time.Hour

// nodeTimeout is one node's part of the answer to timeoutsCode.
var nodeTimeout = regexp.MustCompile(`\{'?([^',{}]+)'?,\s*(?:\{ok,\s*([a-z0-9]+)\}|(undefined))\s*\}`)

func judgeTimeouts(a ctlAnswer, o CtlInspection) health.Check {
	if a.err != nil {
		return unknown(CheckConsumerTimeout, a.err)
	}
	found := nodeTimeout.FindAllStringSubmatch(string(a.out), -1)
	if len(found) == 0 {
		return unknown(CheckConsumerTimeout, fmt.Errorf("rabbitmqctl eval printed %q", firstLine(string(a.out))))
	}
	least, shortest := time.Duration(-1), ""
	for _, f := range found {
		ms, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			continue // undefined, or infinity: no timeout
		}
		if d := time.Duration(ms) * time.Millisecond; least < 0 || d < least {
			least, shortest = d, f[1]
		}
	}
	if least < 0 {
		return health.Good(CheckConsumerTimeout, "none on %d nodes: deliveries may stay open for ever", len(found))
	}
	saw := fmt.Sprintf("%s on %s, the shortest of %d nodes", health.Figure(least), shortest, len(found))
	advice := "set consumer_timeout = 2592000000 (30 days, in ms) in each node's rabbitmq.conf and restart the nodes one by one; " +
		"until then RabbitMQ takes back the delivery of every longer attempt and hands it out again, which breaks no promise and costs a redelivery each time"
	switch {
	case least < consumerTimeoutLeast:
		return health.Bad(CheckConsumerTimeout, health.Warn, advice, "%s: shorter than %s", saw, health.Figure(consumerTimeoutLeast))
	case least < o.TimeLimit:
		return health.Bad(CheckConsumerTimeout, health.Warn, advice, "%s: shorter than the longest time limit of a running job, %s", saw, health.Figure(o.TimeLimit))
	case o.Unlimited:
		saw += "; jobs without a time limit run, which it may strike once"
	}
	return health.Good(CheckConsumerTimeout, "%s", saw)
}

// queueRow is one row of `list_queues --formatter json`.
type queueRow struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Members []string `json:"members"`
	Online  []string `json:"online"`
	Leader  string   `json:"leader"`
}

func judgeQuorum(a ctlAnswer) health.Check {
	var raw []json.RawMessage
	if err := a.decode(&raw); err != nil {
		return unknown(CheckQuorum, err)
	}
	var lost, weak []string
	ours := 0
	for _, text := range raw {
		var q queueRow
		if err := json.Unmarshal(text, &q); err != nil {
			_ = json.Unmarshal(text, &struct{ Name *string }{&q.Name}) // members of a classic queue are a text
		}
		if !strings.HasPrefix(q.Name, "gpuq.") || len(q.Members) == 0 {
			continue
		}
		ours++
		switch {
		case 2*len(q.Online) <= len(q.Members):
			lost = append(lost, fmt.Sprintf("%s (%d of %d)", q.Name, len(q.Online), len(q.Members)))
		case len(q.Online) < len(q.Members) || len(q.Members) < 3:
			weak = append(weak, fmt.Sprintf("%s (%d of %d)", q.Name, len(q.Online), len(q.Members)))
		}
	}
	switch {
	case ours == 0:
		return health.Bad(CheckQuorum, health.Unknown, "give broker.rabbitmqctl a command that reaches the nodes of broker.urls; "+byHand[CheckQuorum],
			"the RabbitMQ that rabbitmqctl reaches has no quorum queue of gpuqd's")
	case len(lost) > 0:
		return health.Bad(CheckQuorum, health.Fail, "start the nodes that hold the other members; until then nothing starts from these queues",
			"%d of %d queues have no majority of their members online: %s", len(lost), ours, health.Names(lost))
	case len(weak) > 0:
		return health.Bad(CheckQuorum, health.Warn, "start the nodes that are down; where all are up, spread the queues: rabbitmq-queues grow NODE all",
			"%d of %d queues would not bear the loss of a node: %s", len(weak), ours, health.Names(weak))
	}
	return health.Good(CheckQuorum, "%d queues, all of their members online", ours)
}

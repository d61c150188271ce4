package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/health"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Names of the checks that AMQP alone can answer.
const (
	checkNode       = "node"
	checkNodes      = "nodes"
	checkVersion    = "version"
	checkConnection = "connections"
	checkPublishing = "publishing"
	checkQueues     = "queues"
	checkLeaders    = "queue leaders"
)

// Inspection says what Inspect is to look at.
type Inspection struct {
	// Shared looks at what is the same whichever host asks, too: the queues, and
	// whether the broker takes messages.
	Shared bool
	// Shapes are the plain queues of all registered shapes.
	Shapes []string
}

// Inspect looks at the broker over connections of its own, and returns when ctx
// ends at the latest. It works before Run, and while no node answers. It changes
// nothing: what is missing is not declared, and nothing is deleted.
func (c *Client) Inspect(ctx context.Context, o Inspection) []health.Check {
	if c.err != nil {
		return []health.Check{health.Bad(checkNode, health.Fail, "correct broker.urls in gpuqd.toml, then restart gpuqd", "%v", c.err)}
	}
	seen := c.visitNodes(ctx)
	defer func() {
		for _, n := range seen {
			if n.session != nil {
				n.session.close(true)
			}
		}
	}()
	checks := append(judgeNodes(seen), c.inspectLinks())
	if !o.Shared || !slices.ContainsFunc(seen, func(n visit) bool { return n.session != nil }) {
		return checks
	}
	checks = append(checks, c.inspectQueues(ctx, o.Shapes)...)
	return append(checks, c.inspectPublishing(ctx))
}

// visit is one node of the configuration and what it said of itself.
type visit struct {
	endpoint endpoint
	session  *session // nil where err is set
	err      error
	took     time.Duration // to connect and log in
	product  string        // "RabbitMQ"
	version  string        // "3.10.8"
	platform string        // "Erlang/OTP 25.2.3"
	cluster  string        // its cluster's name
}

// visitNodes connects to every node at once, and logs in.
func (c *Client) visitNodes(ctx context.Context) []visit {
	seen := make([]visit, len(c.dialer.endpoints))
	var all sync.WaitGroup
	for i, e := range c.dialer.endpoints {
		all.Go(func() {
			n := visit{endpoint: e}
			began := time.Now()
			n.session, n.err = c.dialer.dialOne(ctx, e, "doctor")
			n.took = time.Since(began)
			if n.err == nil {
				said := n.session.conn.Properties
				n.product, n.version = property(said, "product"), property(said, "version")
				n.platform, n.cluster = property(said, "platform"), property(said, "cluster_name")
			}
			seen[i] = n
		})
	}
	all.Wait()
	return seen
}

func property(t amqp.Table, key string) string {
	text, _ := t[key].(string)
	return text
}

// judgeNodes says of each node whether it answers, then of all together whether
// they are one cluster, of a size that bears a loss, and of a known version.
func judgeNodes(seen []visit) []health.Check {
	var checks []health.Check
	var versions, clusters []string
	up := 0
	for _, n := range seen {
		if n.err != nil {
			continue
		}
		up++
		versions = addNew(versions, strings.TrimSpace(n.product+" "+n.version))
		if !strings.Contains(n.cluster, "@") { // else nobody named it: each node then tells its own name
			clusters = addNew(clusters, n.cluster)
		}
	}
	for _, n := range seen {
		checks = append(checks, judgeNode(n, 2*up > len(seen)))
	}
	checks = append(checks, judgeCluster(len(seen), up, clusters))
	if up == 0 {
		return checks
	}
	return append(checks, judgeVersion(seen, versions))
}

func addNew(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

func judgeNode(n visit, majority bool) health.Check {
	switch {
	case errors.Is(n.err, ErrDenied):
		return health.Bad(checkNode, health.Fail, "set the account's password with rabbitmqctl change_password to what broker.password_file holds, "+
			"and its permissions to those of docs/security.md, then restart gpuqd", "%s: %v", n.endpoint.addr, n.err)
	case n.err != nil:
		state := health.Fail
		if majority {
			state = health.Warn
		}
		if hasCode(n.err, amqp.InternalError) { // such as a vhost that did not come up with its node
			return health.Bad(checkNode, state, "restart the vhost on that node (rabbitmqctl restart_vhost), or the node, whose log says why it did not come up",
				"%s runs and takes no connection: %v", n.endpoint.addr, n.err)
		}
		return health.Bad(checkNode, state, "start RabbitMQ on that node (systemctl start rabbitmq-server; its log says why it is down), "+
			"or mend the network between it and this host", "%s: %v", n.endpoint.addr, n.err)
	}
	return health.Good(checkNode, "%s: %s %s on %s, connected and logged in within %s",
		n.endpoint.addr, n.product, n.version, n.platform, health.Figure(n.took))
}

func judgeCluster(configured, up int, clusters []string) health.Check {
	saw := fmt.Sprintf("%d of %d configured nodes answer", up, configured)
	switch {
	case up == 0:
		return health.Bad(checkNodes, health.Fail, "start the nodes; until a majority is up nothing new starts, and running jobs go on", "%s", saw)
	case len(clusters) > 1:
		return health.Bad(checkNodes, health.Fail, "name one cluster's nodes only in broker.urls: messages of the one are not in the other",
			"%s, and they are of different clusters: %s", saw, strings.Join(clusters, ", "))
	case 2*up <= configured:
		return health.Bad(checkNodes, health.Fail, "start the other nodes: without a majority quorum queues stand still", "%s", saw)
	case configured < 3:
		return health.Bad(checkNodes, health.Warn, "for a queue that bears the loss of a node make RabbitMQ a cluster of three and name all in broker.urls; "+
			"on a single machine this is as good as it gets", "%s: with fewer than three none may fail", saw)
	case up < configured:
		return health.Bad(checkNodes, health.Warn, "start the others before another one fails", "%s", saw)
	}
	return health.Good(checkNodes, "%s", saw)
}

// The versions that this is made for. Before 3.10 there are no dead-letter
// strategy and no message TTL of quorum queues, on which retries stand.
var (
	versionOldest = [2]int{3, 10}
	versionNewest = 4 // major
)

func judgeVersion(seen []visit, versions []string) health.Check {
	for _, n := range seen {
		if n.err != nil {
			continue
		}
		major, minor, ok := parseVersion(n.version)
		switch {
		case n.product != "RabbitMQ" || !ok:
			return health.Bad(checkVersion, health.Warn, "use RabbitMQ 3.10 to 4.x, for which gpuqd is made", "%s says it is %s %s", n.endpoint.addr, n.product, n.version)
		case major < versionOldest[0] || major == versionOldest[0] && minor < versionOldest[1]:
			return health.Bad(checkVersion, health.Fail, "upgrade RabbitMQ to 3.10 or newer: quorum queues of older ones have neither TTL nor a safe dead-letter strategy, so retries would be lost",
				"%s is RabbitMQ %s", n.endpoint.addr, n.version)
		case major > versionNewest:
			return health.Bad(checkVersion, health.Warn, "look at the release notes of gpuqd for this version of RabbitMQ", "%s is RabbitMQ %s, newer than any that was tried", n.endpoint.addr, n.version)
		}
	}
	if len(versions) > 1 {
		return health.Bad(checkVersion, health.Warn, "finish the upgrade: nodes of several versions are meant to be together for the time of an upgrade only",
			"the nodes are of several versions: %s", strings.Join(versions, ", "))
	}
	return health.Good(checkVersion, "%s (known: 3.10 to 4.x)", versions[0])
}

// parseVersion reads "3.10.8" or "4.1.0-rc.1".
func parseVersion(text string) (major, minor int, ok bool) {
	parts := strings.SplitN(text, ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err == nil && err2 == nil
}

// inspectLinks says how the connections fare that this daemon works with.
func (c *Client) inspectLinks() health.Check {
	if ok, why := c.Healthy(); !ok {
		return health.Bad(checkConnection, health.Fail, "mend what the other checks of the broker name; the connections come back by themselves", "%s", why)
	}
	return health.Good(checkConnection, "all %d connections of this daemon are up", len(c.links()))
}

// publishPatience bounds the wait for one confirm: under an alarm none comes.
const publishPatience = 5 * time.Second

// nowhere is a routing key without a queue: a message to it is confirmed and
// returned, and changes nothing.
const nowhere = "gpuq.doctor.nowhere"

// inspectPublishing publishes two messages that go nowhere. Under a memory or
// disk alarm the broker reads on until the first, says that it is blocked, and
// never reads the second.
func (c *Client) inspectPublishing(ctx context.Context) health.Check {
	ctx, cancel := context.WithTimeout(ctx, publishPatience)
	defer cancel()
	s, err := c.dialer.dial(ctx, "doctor")
	if err != nil {
		return health.Bad(checkPublishing, health.Unknown, "mend what the check node names", "no connection: %v", err)
	}
	defer s.close(true)
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 4)) // blocked, unblocked and spare: the library waits for a full one
	var times []time.Duration
	for range 2 {
		took, reason, err := s.publishNowhere(ctx, blocked)
		switch {
		case reason != "":
			return health.Bad(checkPublishing, health.Fail, "free memory or disk on the node that has the alarm (rabbitmqctl status names it); "+
				"until then nothing is submitted or retried, and running jobs go on", "the broker accepts no messages: %s", reason)
		case err != nil:
			return health.Bad(checkPublishing, health.Fail, "look at the alarms (rabbitmqctl status) and at the node's log", "a message was not confirmed: %v", err)
		}
		times = append(times, took)
	}
	_, most := health.Spread(times)
	return health.Good(checkPublishing, "messages are confirmed, within %s", health.Figure(most))
}

// publishNowhere publishes one message and waits for its confirm, or for the
// reason why the broker takes none.
func (s *session) publishNowhere(ctx context.Context, blocked <-chan amqp.Blocking) (took time.Duration, reason string, err error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return 0, "", kindOf(err)
	}
	if err := ch.Confirm(false); err != nil {
		return 0, "", kindOf(err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1))
	began := time.Now()
	err = ch.PublishWithContext(ctx, "", nowhere, true, false, amqp.Publishing{UserId: s.user, DeliveryMode: amqp.Transient})
	if err != nil {
		return 0, "", kindOf(err)
	}
	for {
		select {
		case b, ok := <-blocked:
			if ok && b.Active {
				return 0, "memory or disk alarm: " + b.Reason, nil
			}
			if !ok {
				return 0, "", s.cause()
			}
		case _, ok := <-returns:
			if !ok {
				returns = nil
			}
		case confirmed, ok := <-confirms:
			if !ok || !confirmed.Ack {
				return 0, "", s.cause()
			}
			return time.Since(began), "", nil
		case <-ctx.Done():
			return 0, "", fmt.Errorf("no answer within %s", publishPatience)
		}
	}
}

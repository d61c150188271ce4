package agent

import (
	"context"
	"errors"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"
)

// brokerInspector is a Broker that can say how it fares; *broker.Client is it.
type brokerInspector interface {
	Inspect(ctx context.Context, o broker.Inspection) []health.Check
	Vhost() string
	Nodes() int
}

var _ brokerInspector = (*broker.Client)(nil)

// examineBroker asks the broker over AMQP; shared, about the queues too.
func (a *Agent) examineBroker(ctx context.Context, shared bool) []health.Check {
	b, ok := a.broker.(brokerInspector)
	if !ok {
		return nil
	}
	o := broker.Inspection{Shared: shared}
	if shared {
		o.Shapes = a.knownShapes(ctx)
	}
	return b.Inspect(ctx, o)
}

// knownShapes returns the queues of the registered shapes: from the ledger, or,
// while it is out of reach, as this daemon knows them.
func (a *Agent) knownShapes(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Ledger.Timeout.Std())
	defer cancel()
	if l, err := a.book(); err == nil {
		if queues, err := l.ShapeList(ctx); err == nil {
			return queues
		}
	}
	var queues []string
	for _, shape := range a.shapes.list() {
		queues = append(queues, shape.Queue())
	}
	return queues
}

// examineRabbit asks RabbitMQ's own tool what AMQP does not tell.
func (a *Agent) examineRabbit(ctx context.Context) []health.Check {
	b, ok := a.broker.(brokerInspector)
	if !ok {
		return nil
	}
	o := broker.CtlInspection{Command: a.cfg.Broker.Rabbitmqctl, Vhost: b.Vhost(), Nodes: b.Nodes()}
	o.TimeLimit, o.Unlimited = a.longestLimit(ctx)
	return broker.InspectCtl(ctx, o)
}

// longestLimit returns the longest time limit of what runs anywhere, and whether
// something runs without one.
func (a *Agent) longestLimit(ctx context.Context) (longest time.Duration, unlimited bool) {
	l, err := a.book()
	if err != nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Ledger.Timeout.Std())
	defer cancel()
	held, err := l.Held(ctx)
	if err != nil {
		return 0, false // other checks say so
	}
	for _, j := range held {
		if limit := j.Spec.TimeLimit.Std(); limit == 0 {
			unlimited = true
		} else {
			longest = max(longest, limit)
		}
	}
	return longest, unlimited
}

// examineRedis asks the done-cache, if it can tell; *dedup.Cache can.
func (a *Agent) examineRedis(ctx context.Context) []health.Check {
	c, ok := a.done.(interface {
		Inspect(ctx context.Context) []health.Check
	})
	if !ok {
		return nil
	}
	return c.Inspect(ctx)
}

// checkStart is the name of the check that the daemon has its ledger.
const checkStart = "start-up"

// examineLedger asks the ledger. A daemon that still waits for it tries to open
// it once more, which says what it waits for.
func (a *Agent) examineLedger(ctx context.Context, shared bool) []health.Check {
	o := ledger.Inspection{Renew: a.cfg.Lease.Renew.Std(), Shared: shared}
	if l, err := a.book(); err == nil {
		return l.Inspect(ctx, o)
	}
	l, err := a.openLedger(ctx)
	switch {
	case errors.Is(err, ledger.ErrUnfit):
		return []health.Check{health.Bad(checkStart, health.Fail, "do what the reason says, then restart gpuqd: it does not start on this ledger", "%v", err)}
	case err != nil:
		return []health.Check{health.Bad(checkStart, health.Fail, "start the ledger's servers, or mend the network between them and this host; gpuqd goes on by itself when they answer",
			"the daemon has waited for its %s ledger since its start: %v", a.cfg.Ledger.Kind, err)}
	}
	defer l.Close() //nolint:errcheck // every write was answered
	return append(l.Inspect(ctx, o), health.Bad(checkStart, health.Warn, "wait a moment and look again", "the ledger answers, and the daemon is about to open it"))
}

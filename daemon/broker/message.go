package broker

import (
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Headers of ours on messages.
const (
	HeaderAskLedger = "gpuq-ask-ledger" // bool: the done-cache must not answer for this message
	HeaderReason    = "gpuq-reason"     // on gpuq.dead: why it is there
	HeaderSource    = "gpuq-source"     // on gpuq.dead: the queue it came from
	HeaderUser      = "gpuq-user"       // on gpuq.dead: the validated user-id of whoever published it
)

// Message is a job's message on its way to a job queue.
type Message struct {
	Queue     string         // the shape's plain queue
	Again     bool           // to the shape's again queue instead
	AskLedger bool           // sets HeaderAskLedger: published by sweeper, takeover, retry or requeue
	Body      []byte         // JSON
	MessageID string         // the job's UUID
	Headers   map[string]any // those of the broker (x-death and its like) are left out
}

// target returns the queue that the message is for.
func (m Message) target() string {
	if m.Again {
		return strings.TrimSuffix(m.Queue, againSuffix) + againSuffix
	}
	return m.Queue
}

// DeadLetter is a bad message to set aside for good.
type DeadLetter struct {
	Body      []byte
	MessageID string
	Reason    string // for a person
	Source    string // the queue it came from
	UserID    string // as the broker validated it; "" if it carried none
	Headers   map[string]any
}

// Tag names a delivery for Ack and Nack. It is comparable; the zero Tag names
// none. It is good for one generation of the take connection.
type Tag struct {
	Generation uint64
	Delivery   uint64
}

// Delivery is one hand-over of a message by the broker.
type Delivery struct {
	Tag           Tag // zero for what a Consume method delivers: its handler's verdict settles that
	Queue         string
	Body          []byte
	MessageID     string
	UserID        string // the publisher's account, validated by the broker; "" if the message carries none
	Headers       map[string]any
	Redelivered   bool
	AskLedger     bool   // HeaderAskLedger
	DeadReason    string // on gpuq.dead and gpuq.dlx: why it is there
	DeadSource    string // on gpuq.dead and gpuq.dlx: the queue it came from
	ReplyTo       string // where Reply answers; "" if no answer is wanted
	CorrelationID string
	Exchange      string
	RoutingKey    string
	Timestamp     time.Time // as the publisher set it; zero if it did not
}

func newDelivery(queue string, d amqp.Delivery) *Delivery {
	out := &Delivery{
		Queue: queue, Body: d.Body, MessageID: d.MessageId, UserID: d.UserId,
		Headers: map[string]any(d.Headers), Redelivered: d.Redelivered,
		ReplyTo: d.ReplyTo, CorrelationID: d.CorrelationId,
		Exchange: d.Exchange, RoutingKey: d.RoutingKey, Timestamp: d.Timestamp,
	}
	out.AskLedger, _ = d.Headers[HeaderAskLedger].(bool)
	switch queue {
	case QueueDead:
		out.DeadReason, out.DeadSource = text(d.Headers, HeaderReason), text(d.Headers, HeaderSource)
		out.UserID = text(d.Headers, HeaderUser) // who published it first, not the host that set it aside
	case QueueDLX:
		out.DeadReason, out.DeadSource = text(d.Headers, "x-first-death-reason"), text(d.Headers, "x-first-death-queue")
	}
	return out
}

func text(headers amqp.Table, key string) string {
	s, _ := headers[key].(string)
	return s
}

// ownHeaders returns the headers without those that the broker wrote or obeys:
// an x-death that came along would grow and feed its cycle detection, and CC
// and BCC would copy the message to other queues.
func ownHeaders(headers map[string]any) amqp.Table {
	own := amqp.Table{}
	for key, value := range headers {
		if strings.HasPrefix(key, "x-") || key == "CC" || key == "BCC" {
			continue
		}
		own[key] = value
	}
	return own
}

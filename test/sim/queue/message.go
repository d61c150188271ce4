package queue

import (
	"maps"
	"strings"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// place is where a message is.
type place int

const (
	gone place = iota
	ready
	unacked
	waiting
)

// message is one message from its publication to its removal.
type message struct {
	id          string // message ID: the job's UUID
	body        []byte
	headers     map[string]any
	ask         bool // broker.HeaderAskLedger
	user        string
	replyTo     string
	correlation string
	exchange    string
	key         string // routing key
	sent        time.Time
	redelivered bool
	deadReason  string
	deadSource  string

	// The instant's.
	place place
	queue *fifo
	since time.Time // it is in this place
}

// newMessage is a job's message as a client writes it.
func (c *Client) newMessage(m broker.Message) *message {
	out := &message{id: m.MessageID, body: m.Body, ask: m.AskLedger, user: c.user, key: m.Queue, sent: time.Now()}
	if m.Again {
		out.key = again(m.Queue)
	}
	for key, value := range m.Headers {
		if strings.HasPrefix(key, "x-") || key == "CC" || key == "BCC" || key == broker.HeaderAskLedger {
			continue
		}
		if out.headers == nil {
			out.headers = map[string]any{}
		}
		out.headers[key] = value
	}
	return out
}

const (
	jobPrefix   = "gpuq.job."
	againSuffix = ".again"
)

func plain(queue string) string { return strings.TrimSuffix(queue, againSuffix) }

func again(queue string) string { return plain(queue) + againSuffix }

// delivery is the message as a client gets it.
func (m *message) delivery() *broker.Delivery {
	d := &broker.Delivery{
		Queue: m.queue.name, Body: m.body, MessageID: m.id, UserID: m.user, Headers: map[string]any{},
		Redelivered: m.redelivered, AskLedger: m.ask, ReplyTo: m.replyTo, CorrelationID: m.correlation,
		Exchange: m.exchange, RoutingKey: m.key, Timestamp: m.sent,
	}
	maps.Copy(d.Headers, m.headers)
	if m.ask {
		d.Headers[broker.HeaderAskLedger] = true
	}
	if m.queue.kind == net {
		d.DeadReason, d.DeadSource = m.deadReason, m.deadSource
	}
	return d
}

// copyOf is what a dead-lettered message goes on as.
func (m *message) copyOf() *message {
	c := *m
	c.place, c.queue, c.redelivered = gone, nil, false
	return &c
}

// admit begins the life of a message within the cluster. Within the instant.
func (s *Server) admit(m *message, q *fifo, at place) {
	m.queue, m.place, m.since = q, at, time.Now()
	s.alive++
	if m.id != "" {
		s.byJob[job.ID(m.id)] = append(s.byJob[job.ID(m.id)], m)
	}
}

// remove ends it. Within the instant.
func (s *Server) remove(m *message) {
	m.place = gone
	s.alive--
	list := s.byJob[job.ID(m.id)]
	for i, other := range list {
		if other == m {
			list[i] = list[len(list)-1]
			s.byJob[job.ID(m.id)] = list[:len(list)-1]
		}
	}
	if m.id != "" && len(s.byJob[job.ID(m.id)]) == 0 {
		delete(s.byJob, job.ID(m.id))
	}
}

// deadLetter moves a message that a client rejected to gpuq.dlx, or drops it
// where its queue has no net. Within the instant.
func (s *Server) deadLetter(m *message, host, reason string) {
	s.remove(m)
	if k := m.queue.kind; k != work && k != submit {
		return
	}
	if m.queue.kind == work {
		s.w.Record(history.Event{Kind: history.SetAside, Job: job.ID(m.id), Host: host, Reason: reason})
	}
	dead := m.copyOf()
	if dead.deadReason == "" {
		dead.deadReason, dead.deadSource = reason, m.queue.name
	}
	s.put(s.queues[broker.QueueDLX], dead)
}

package watch

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

var jobFaults = []provocation{
	{
		fault:  "a batch of 60 jobs whose program fails at once",
		strike: batchFails,
		alerts: []wanted{{alert: "JobsFailingFast"}},
	},
	{
		fault:  "a message that is no job is published to gpuq.submit",
		strike: poison,
		alerts: []wanted{{alert: "DeadLetters"}},
		long:   true,
	},
	{
		fault:  "messages of a job that is over are published 150 times again",
		strike: duplicates,
		alerts: []wanted{{alert: "DuplicatesRising"}},
		long:   true,
	},
	{
		fault:  "more jobs come than end: 400 every 50 s, while all hosts are drained",
		strike: queueGrows,
		alerts: []wanted{{alert: "QueueGrowing"}},
		within: 4 * time.Minute,
	},
}

// submit submits a job of a program.
func (s *Site) submit(t *testing.T, command ...string) job.ID {
	t.Helper()
	id, err := job.ParseID(s.ctl(t, append([]string{"submit", "--"}, command...)...))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// submitMany submits equal jobs, in one file.
func (s *Site) submitMany(t *testing.T, jobs, gpus int, command ...string) (ids []string) {
	t.Helper()
	spec, err := json.Marshal(map[string]any{"command": command, "gpus": gpus})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.GpuqctlInput(t.Context(), strings.NewReader(strings.Repeat(string(spec)+"\n", jobs)), "submit", "-f", "-")
	if err != nil || r.Code != 0 {
		t.Fatalf("submit %d jobs: exit code %d, %v: %s", jobs, r.Code, err, r.Stderr)
	}
	return strings.Fields(r.Stdout)
}

func batchFails(t *testing.T, s *Site) func() {
	s.submitMany(t, 60, 0, "false")
	return nothing
}

// publish sends messages as whoever has these nodes' accounts.
func publish(t *testing.T, urls []string, err error, exchange, key string, messages ...amqp.Publishing) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(urls[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		confirm, err := ch.PublishWithDeferredConfirmWithContext(t.Context(), exchange, key, true, false, m)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := confirm.WaitContext(t.Context()); err != nil || !ok {
			t.Fatalf("the broker has not taken a message: %t, %v", ok, err)
		}
	}
}

func poison(t *testing.T, s *Site) func() {
	urls, err := s.UserURLs()
	publish(t, urls, err, "gpuq.submit", "", amqp.Publishing{Body: []byte("run this please"), UserId: s.User()})
	return nothing
}

func duplicates(t *testing.T, s *Site) func() {
	const times = 150
	id := s.Submit(t, "true")
	j := s.WaitEnd(t, id)
	m := amqp.Publishing{
		Body: job.Ticket{ID: id, EnqueuedAt: job.At(time.Now())}.Encode(), MessageId: string(id), DeliveryMode: amqp.Persistent,
	}
	var all []amqp.Publishing
	for range times {
		all = append(all, m)
	}
	urls, err := s.HostURLs()
	publish(t, urls, err, "", j.Queue, all...)
	return nothing
}

// queueGrows has all hosts drained, which is what it is like when none has room.
func queueGrows(t *testing.T, s *Site) func() {
	resume := s.drainAll(t)
	for n := range 3 {
		if n > 0 {
			pass(t, 50*time.Second) // the rule compares with what was a minute ago
		}
		s.submitMany(t, 400, 0, "true")
	}
	return func() {
		resume()
		wait.For(t, resolvedWithin, func() error {
			n, err := s.value(t, "sum(rabbitmq_queue_messages_ready)")
			if err == nil && n > 0 {
				err = fmt.Errorf("%v messages are left", n)
			}
			return err
		})
	}
}

// pass lets a time pass that is part of a fault.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// drainAll keeps all hosts from taking jobs.
func (s *Site) drainAll(t *testing.T) (resume func()) {
	t.Helper()
	for _, w := range s.Workers() {
		s.at(t, w, "drain", w, "--mode", "finish", "--reason", "jobs are to wait")
	}
	return func() {
		for _, w := range s.Workers() {
			s.at(t, w, "resume", w)
		}
	}
}

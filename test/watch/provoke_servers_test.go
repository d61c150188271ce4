package watch

import (
	"database/sql"
	"fmt"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // registers the driver

	"gpuqd/test/wait"
)

var sqliteFaults = []provocation{{
	fault:  "a process takes the write lock of the SQLite ledger and keeps it, while a job runs",
	strike: ledgerLocked,
	alerts: []wanted{
		{alert: "LedgerLost"},
		{alert: "LedgerUnreachable", labels: of("worker_2")},
		{alert: "LeaseRenewalsFailing", labels: of("worker_2")},
		{alert: "JobsFrozen"},
	},
}}

var mongoFaults = []provocation{{
	fault:  "the ledger's server stands still for 1.8 of 2 seconds (SIGSTOP, SIGCONT)",
	strike: ledgerSlow,
	alerts: []wanted{{alert: "LedgerSlow"}},
}}

func ledgerLocked(t *testing.T, s *Site) func() {
	id := s.Submit(t, "sleep 45")
	wait.For(t, patience, func() error {
		n, err := s.value(t, "sum(gpuqd_attempts_held)")
		if err == nil && n != 1 {
			err = fmt.Errorf("%v attempts are held", n)
		}
		return err
	})
	db, err := sql.Open("sqlite", s.SQLitePath()+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the lock ends with it
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := db.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		s.WaitEnd(t, id)
	}
}

// ledgerSlow freezes the server again and again until it is mended.
func ledgerSlow(t *testing.T, s *Site) func() {
	const frozen, thawed = 1800 * time.Millisecond, 200 * time.Millisecond
	signal := func(sig syscall.Signal) {
		if err := s.Signal("mongodb", sig); err != nil {
			t.Error(err)
		}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer signal(syscall.SIGCONT)
		for {
			signal(syscall.SIGSTOP)
			time.Sleep(frozen) // part of the fault
			signal(syscall.SIGCONT)
			select {
			case <-end:
				return
			case <-t.Context().Done():
				return
			case <-time.After(thawed):
			}
		}
	}()
	t.Cleanup(func() { <-ended })
	return func() {
		close(end)
		<-ended
	}
}

var brokerFaults = []provocation{
	{
		fault:  "a RabbitMQ node has a memory alarm (its watermark is set to nothing)",
		strike: brokerAlarm,
		alerts: []wanted{{alert: "RabbitMQAlarm", labels: of("rabbit_2")}},
	},
	{
		fault:  "one RabbitMQ node of three is killed and kept down",
		strike: goesDown("rabbit_3"),
		alerts: []wanted{{alert: "RabbitMQNodeDown", labels: of("rabbit_3")}, {alert: "RabbitMQQuorumAtRisk"}},
	},
	{
		fault:  "two RabbitMQ nodes of three are killed and kept down, while a job waits",
		strike: brokerWithoutMajority,
		alerts: []wanted{{alert: "RabbitMQNoQuorum"}, {alert: "BrokerConnectionDown"}, {alert: "QueueHeadTooOld"}},
	},
	{
		fault:  "the link between two RabbitMQ nodes is cut, and neither pauses (as RabbitMQ 4 does)",
		strike: brokerPartition,
		alerts: []wanted{{alert: "RabbitMQPartition"}},
	},
}

// eval runs Erlang in the n-th node, from 1.
func (s *Site) eval(t *testing.T, n int, code string, args ...any) string {
	t.Helper()
	node := s.Rabbit().Nodes[n-1]
	out, err := s.Rabbit().Eval(t.Context(), node, fmt.Sprintf(code, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func brokerAlarm(t *testing.T, s *Site) func() {
	s.eval(t, 2, "vm_memory_monitor:set_vm_memory_high_watermark(0.00001).")
	return func() { s.eval(t, 2, `vm_memory_monitor:set_vm_memory_high_watermark({absolute, "1GB"}).`) }
}

// brokerWithoutMajority lets a job wait while all hosts are drained, and resumes them when
// it cannot be taken any more.
func brokerWithoutMajority(t *testing.T, s *Site) func() {
	resume := s.drainAll(t)
	id := s.Submit(t, "true")
	wait.For(t, patience, func() error {
		n, err := s.value(t, "sum(rabbitmq_queue_messages_ready)")
		if err == nil && n != 1 {
			err = fmt.Errorf("%v messages wait", n)
		}
		return err
	})
	for _, unit := range []string{"rabbit_2", "rabbit_3"} {
		s.down(t, unit)
	}
	resume()
	return func() {
		// The last to go is to be the first to come; a node waits for others, too.
		for _, unit := range []string{"rabbit_3", "rabbit_2"} {
			s.up(t, unit)
		}
		s.WaitEnd(t, id)
	}
}

// brokerPartition gives a node a wrong cookie for another, so that their link does not come
// back, and has all of them go on as they are.
func brokerPartition(t *testing.T, s *Site) func() {
	far := s.Rabbit().Nodes[2].Name
	handling := func(how string) {
		for n := range s.Rabbit().Nodes {
			s.eval(t, n+1, "application:set_env(rabbit, cluster_partition_handling, %s).", how)
		}
	}
	handling("ignore")
	s.eval(t, 1, "erlang:set_cookie('%[1]s', nobody), erlang:disconnect_node('%[1]s').", far)
	return func() {
		// Both have gone on alone: one is started anew, and takes what the others have.
		up := s.down(t, "rabbit_3")
		s.eval(t, 1, "erlang:set_cookie('%s', erlang:get_cookie()).", far)
		up()
		handling("pause_minority")
	}
}

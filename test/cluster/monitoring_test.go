package cluster

import (
	"maps"
	"testing"

	"gpuqd/daemon/config"
)

func TestMonitoringIsAddedAndStays(t *testing.T) {
	files, err := newLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	plain := Options{Dir: files.dir, Workers: 2, DevicesPerWorker: 1, RabbitNodes: 1, Ledger: config.LedgerSQLite}
	watched := plain
	watched.Monitoring = &Monitoring{}
	choose := func(o Options, monitoring bool) map[string]int {
		t.Helper()
		s, err := settle(files, o)
		if err != nil {
			t.Fatal(err)
		}
		if s.Monitoring != monitoring {
			t.Errorf("monitoring is %t, want %t", s.Monitoring, monitoring)
		}
		return s.Ports
	}
	before := choose(plain, false)
	with := choose(watched, true)
	for name, port := range before {
		if with[name] != port {
			t.Errorf("the port of %s was %d and is %d", name, port, with[name])
		}
	}
	for _, name := range monitoringPorts(plain.RabbitNodes, plain.Workers) {
		if with[name] == 0 {
			t.Errorf("%s has no port", name)
		}
	}
	if after := choose(plain, true); !maps.Equal(after, with) {
		t.Errorf("ports are %v, and were %v", after, with)
	}
}

func TestUnitsOfAWorkersHost(t *testing.T) {
	c := &Cluster{monitoring: &monitoringParts{}}
	for unit, want := range map[string]int{"worker_2": 3, "rabbit_2": 0, "redis": 0, "promtail_2": 0} {
		if got := c.companions(unit); len(got) != want {
			t.Errorf("with %s there are %v", unit, got)
		}
	}
	if got := new(Cluster).companions("worker_2"); got != nil {
		t.Errorf("in a cluster that is not watched there are %v", got)
	}
}

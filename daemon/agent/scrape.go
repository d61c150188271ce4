package agent

import (
	"strconv"

	"gpuqd/daemon/device"
	"gpuqd/daemon/placement"

	"github.com/prometheus/client_golang/prometheus"
)

// scrape is the prometheus.Collector of what the agent need not count, since it
// can be looked at when somebody asks.
type scrape struct {
	agent *Agent

	ready, taking, drained, ledgerReachable *prometheus.Desc
	leaseLeft, attempts, shapes             *prometheus.Desc
	slots, devices, deviceSeconds           *prometheus.Desc
	deviceInfo, deviceMemory, deviceUsed    *prometheus.Desc
	deviceProcesses                         *prometheus.Desc
	queueRoom, userSeconds, jobs            *prometheus.Desc
}

var _ prometheus.Collector = (*scrape)(nil)

func newScrape(a *Agent) *scrape {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &scrape{
		agent:           a,
		ready:           desc("gpuqd_ready", "1 when start-up is over."),
		taking:          desc("gpuqd_taking", "1 while this host takes jobs that fit; gpuqctl status says what is in the way."),
		drained:         desc("gpuqd_drained", "1 while the whole host is drained by an operator."),
		ledgerReachable: desc("gpuqd_ledger_reachable", "1 while the ledger answers this daemon."),
		leaseLeft:       desc("gpuqd_lease_left_seconds", "Time until the lease ends unless it is renewed; negative past it."),
		attempts:        desc("gpuqd_attempts_held", "Attempts that this daemon works on, from the claim to the commit."),
		shapes:          desc("gpuqd_shapes", "Shapes in use that this daemon knows; take.shapes_max bounds them."),
		slots:           desc("gpuqd_slots", "Slots for jobs without a device, by state.", "state"),
		devices:         desc("gpuqd_devices", "Devices of this host by state.", "state"),
		deviceSeconds:   desc("gpuqd_device_seconds_total", "Time that devices have spent in each state since this daemon started.", "state"),
		deviceInfo:      desc("gpuqd_device_info", "Constant 1, per device.", "device_uuid", "index", "model", "simulated"),
		deviceMemory:    desc("gpuqd_device_memory_bytes", "A device's memory.", "device_uuid"),
		deviceUsed:      desc("gpuqd_device_memory_used_bytes", "A device's memory in use, reserved memory included; what a fault says where it is simulated.", "device_uuid"),
		deviceProcesses: desc("gpuqd_device_processes", "Processes that use a device.", "device_uuid"),
		queueRoom:       desc("gpuqd_queue_room", "1 while this host could start a job of the queue's shape at once.", "queue"),
		userSeconds:     desc("gpuqd_user_device_seconds_total", "Time that users' attempts have held devices since this daemon started; other is what further users held.", "user"),
		jobs:            desc("gpuqd_ledger_jobs", "Jobs that are not over, by state, as the one host that counts them last did; bounded.", "state"),
	}
}

// Describe implements prometheus.Collector.
func (s *scrape) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.ready, s.taking, s.drained, s.ledgerReachable, s.leaseLeft, s.attempts, s.shapes, s.slots, s.devices,
		s.deviceSeconds, s.deviceInfo, s.deviceMemory, s.deviceUsed, s.deviceProcesses, s.queueRoom, s.userSeconds, s.jobs,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *scrape) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	a := s.agent
	drained := a.drains.onHost() != nil
	gauge(s.ready, number(a.ready.Load()))
	gauge(s.taking, number(a.ready.Load() && a.mayTake() == ""))
	gauge(s.drained, number(drained))
	gauge(s.ledgerReachable, number(a.isOpen() && a.reach.trouble() == ""))
	if a.lease.current() != "" {
		gauge(s.leaseLeft, a.lease.left().Seconds())
	}
	gauge(s.attempts, float64(a.runs.len()))
	gauge(s.shapes, float64(len(a.shapes.list())))
	busy := a.runs.slotsUsed()
	rest := max(0, a.cfg.Host.SlotsWithoutGPU-busy)
	gauge(s.slots, float64(busy), "busy")
	gauge(s.slots, float64(rest)*number(!drained), "free")
	gauge(s.slots, float64(rest)*number(drained), "cordoned")
	s.collectDevices(to)
	s.collectJobs(to)
}

func (s *scrape) collectJobs(to chan<- prometheus.Metric) {
	a := s.agent
	room := map[string]bool{}
	if a.ready.Load() && a.mayTake() == "" {
		for _, t := range placement.Plan(a.view()) {
			room[t.Shape.Queue()] = true
		}
	}
	for _, shape := range a.shapes.list() {
		to <- prometheus.MustNewConstMetric(s.queueRoom, prometheus.GaugeValue, number(room[shape.Queue()]), shape.Queue())
	}
	a.usage.advance(a.clock.Now(), a.runs.all())
	for user, seconds := range a.usage.byUser() {
		to <- prometheus.MustNewConstMetric(s.userSeconds, prometheus.CounterValue, seconds, user)
	}
	for state, n := range a.jobsCounted() {
		to <- prometheus.MustNewConstMetric(s.jobs, prometheus.GaugeValue, float64(n), string(state))
	}
}

func (s *scrape) collectDevices(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	spent := s.agent.devices.Spent()
	inState := map[device.State]int{}
	for _, d := range s.agent.devices.Snapshot() {
		inState[d.State]++
		simulated := "false"
		if d.Simulated {
			simulated = "true"
		}
		gauge(s.deviceInfo, 1, d.UUID, indexText(d.Index), d.Model, simulated)
		gauge(s.deviceMemory, float64(d.MemoryBytes), d.UUID)
		gauge(s.deviceUsed, float64(d.MemoryUsedBytes), d.UUID)
		gauge(s.deviceProcesses, float64(len(d.Processes)), d.UUID)
	}
	for _, state := range device.States {
		gauge(s.devices, float64(inState[state]), string(state))
		to <- prometheus.MustNewConstMetric(s.deviceSeconds, prometheus.CounterValue, spent[state].Seconds(), string(state))
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// indexText is a device's place on its host; "" where nobody knows.
func indexText(index int) string {
	if index == device.UnknownIndex {
		return ""
	}
	return strconv.Itoa(index)
}

// isOpen reports whether the ledger has been opened.
func (a *Agent) isOpen() bool {
	select {
	case <-a.opened:
		return true
	default:
		return false
	}
}

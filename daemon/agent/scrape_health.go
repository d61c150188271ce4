package agent

import (
	"strconv"

	"gpuqd/daemon/device"

	"github.com/prometheus/client_golang/prometheus"
)

// healthScrape is the prometheus.Collector of how the devices fare.
type healthScrape struct {
	devices *device.Manager

	ecc, xids, quarantines, breakers, open, alarms, checks, foreign *prometheus.Desc
}

var _ prometheus.Collector = (*healthScrape)(nil)

func newHealthScrape(devices *device.Manager) *healthScrape {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &healthScrape{
		devices:     devices,
		ecc:         desc("gpuqd_device_ecc_errors", "Memory errors since the driver was loaded; none where ECC is off or not there.", "device_uuid", "kind"),
		xids:        desc("gpuqd_device_xids_total", "XIDs that the driver has reported, by code and class; codes that gpuqd does not know are other.", "xid", "class"),
		quarantines: desc("gpuqd_device_quarantines_total", "Times that a device was put into quarantine, by reason.", "reason"),
		breakers:    desc("gpuqd_device_breaker_opens_total", "Times that a breaker took a device, or the devices of the host, out.", "scope"),
		open:        desc("gpuqd_device_breakers_open", "Breakers that keep a device, or the devices of the host, out now.", "scope"),
		alarms:      desc("gpuqd_device_alarms_total", "Alarms that an attempt must end, repetitions included.", "kind"),
		checks:      desc("gpuqd_device_checks_total", "Devices looked at after an attempt, by what the first look found.", "result"),
		foreign:     desc("gpuqd_device_foreign_processes", "Processes on devices that no attempt holds, and that no attempt left there."),
	}
}

// Describe implements prometheus.Collector.
func (s *healthScrape) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.ecc, s.xids, s.quarantines, s.breakers, s.open, s.alarms, s.checks, s.foreign} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *healthScrape) Collect(to chan<- prometheus.Metric) {
	metric := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	for _, d := range s.devices.Snapshot() {
		if d.ECC != nil {
			metric(s.ecc, prometheus.GaugeValue, float64(d.ECC.Corrected), d.UUID, "corrected")
			metric(s.ecc, prometheus.GaugeValue, float64(d.ECC.Uncorrected), d.UUID, "uncorrected")
		}
	}
	metric(s.foreign, prometheus.GaugeValue, float64(s.devices.Foreign()))
	counted := s.devices.Tally()
	other := 0
	for code, n := range counted.XIDs {
		x := device.LookUpXID(code)
		if x.Class == device.XIDUnknown {
			other += n
			continue
		}
		metric(s.xids, prometheus.CounterValue, float64(n), strconv.Itoa(code), string(x.Class))
	}
	metric(s.xids, prometheus.CounterValue, float64(other), "other", string(device.XIDUnknown))
	for _, kind := range device.QuarantineKinds {
		metric(s.quarantines, prometheus.CounterValue, float64(counted.Quarantines[kind]), string(kind))
	}
	for _, kind := range []device.AlarmKind{device.AlarmDevice, device.AlarmMemory} {
		metric(s.alarms, prometheus.CounterValue, float64(counted.Alarms[kind]), string(kind))
	}
	metric(s.breakers, prometheus.CounterValue, float64(counted.DeviceBreakers), "device")
	metric(s.breakers, prometheus.CounterValue, float64(counted.HostBreakers), "host")
	devices, host := s.devices.OpenBreakers()
	metric(s.open, prometheus.GaugeValue, float64(devices), "device")
	metric(s.open, prometheus.GaugeValue, number(host), "host")
	metric(s.checks, prometheus.CounterValue, float64(counted.ChecksClean), "clean")
	metric(s.checks, prometheus.CounterValue, float64(counted.ChecksDirty), "dirty")
}

package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

// ofHost is a metric of the host that was chosen.
func ofHost(name string, matchers ...string) promql {
	return metric(name, append([]string{`host="$host"`}, matchers...)...)
}

func host() board {
	return board{
		uid: "gpuq-host", title: "Host", since: "now-6h",
		question: "How much does this worker get through, how long do its jobs take, and what is wrong with it?",
		variables: []variable{{
			name: "host", label: "Host", description: "A host that runs gpuqd.", values: `up{job="gpuqd"}, host`,
		}},
		rows: []row{
			section("Is it at work", 4, hostNow()...),
			section("Throughput and processing time", 8, hostWork()...),
			section("Devices", 8, hostDevices()...),
			section("What it depends on", 8, hostParts()...),
			section("The machine", 8, hostMachine()...),
			section("Logs", 8, hostLogs()...),
			section("What gpuqd says", 10, hostLines()...),
		},
	}
}

func hostNow() []panel {
	return []panel{
		number("gpuqd", units.NoUnit, "Whether Prometheus reaches the daemon. While it is down its jobs run on until their lease ends.",
			maxOf(ofHost("up", `job="gpuqd"`)).as("gpuqd")).say(onOff("answers", "down")...).wide(3).runbook("GpuqdDown"),
		number("Takes jobs", units.NoUnit, "Whether it takes jobs that fit. Not while it is starting, drained, without ledger or lease, or after a start that failed.",
			maxOf(ofHost("gpuqd_taking")).as("takes jobs")).say(onOff("yes", "no")...).wide(3).runbook("GpuqdNotTaking"),
		number("Drained", units.NoUnit, "Whether an operator has drained the whole host.",
			maxOf(ofHost("gpuqd_drained")).as("drained")).say(word{1, "drained", orange}, word{0, "no", green}).wide(3),
		number("Ledger", units.NoUnit, "Whether the ledger answers. While it does not, nothing is taken, and results wait on this host's disk.",
			minOf(ofHost("gpuqd_ledger_reachable")).as("ledger")).say(onOff("answers", "unreachable")...).wide(3).runbook("LedgerUnreachable"),
		number("Broker", units.NoUnit, "Whether all connections to RabbitMQ are up.",
			minOf(ofHost("gpuqd_broker_connected")).as("broker")).say(onOff("connected", "away")...).wide(3).runbook("BrokerConnectionDown"),
		number("Lease left", units.Seconds, "Until the lease of this host ends. Below 0 its attempts are frozen.",
			minOf(ofHost("gpuqd_lease_left_seconds")).as("left")).colour(below(red), step{0, green}).wide(3).runbook("LeaseRenewalsFailing", "JobsFrozen"),
		number("Attempts", units.Short, "That the daemon works on now, from the claim to the commit.",
			sumOf(ofHost("gpuqd_attempts_held")).as("attempts")).wide(3),
		number("Up since", units.DateTimeFromNow, "When the daemon was started.",
			promql(`1000 * max (process_start_time_seconds{host="$host", job="gpuqd"})`).as("started")).wide(3).runbook("GpuqdRestarting", "GpuqdDied"),
	}
}

func hostWork() []panel {
	return []panel{
		graph("Throughput", units.CountsPerMinute, "Attempts that ended, by the state their job went to.",
			("60 * " + ratePerSecond(ofHost("gpuqd_attempts_total"), "outcome")).as("{{outcome}}")).runbook("JobsFailingFast"),
		graph("Processing time", units.Seconds, "From the start of an attempt to its end, frozen time included, of those that ended in the last 10 minutes.",
			quantile(0.5, ofHost("gpuqd_attempt_duration_seconds")).as("half of the attempts"),
			quantile(0.95, ofHost("gpuqd_attempt_duration_seconds")).as("95 of 100"),
			promql(`sum (rate(gpuqd_attempt_duration_seconds_sum{host="$host"}[10m])) / (sum (rate(gpuqd_attempt_duration_seconds_count{host="$host"}[10m])) > 0)`).as("mean")),
		graph("Failures by class", units.CountsPerMinute, "Attempts that did not succeed, by class. user: the job's own failure.",
			("60 * " + ratePerSecond(ofHost("gpuqd_attempts_failed_total"), "class")).as("{{class}}")).runbook("JobsFailingFast"),
		graph("What a start costs", units.Seconds, "Of the last 10 minutes: until a shim has started the job's command; how long devices lay idle between two attempts (of use only where work was waiting).",
			quantile(0.95, ofHost("gpuqd_shim_start_duration_seconds")).as("start, 95 of 100"),
			quantile(0.5, ofHost("gpuqd_device_gap_seconds")).as("gap, half"),
			quantile(0.95, ofHost("gpuqd_device_gap_seconds")).as("gap, 95 of 100")),
	}
}

func hostDevices() []panel {
	return []panel{
		stack("Devices by state", units.Short, "What this host's devices are doing.",
			sumOf(ofHost("gpuqd_devices"), "state").as("{{state}}")).runbook("DeviceSick", "DevicesMissing", "BreakerOpen"),
		graph("Use of the devices", units.PercentUnit, "Share of the time of this host's devices that they were in each state.",
			over(ratePerSecond(ofHost("gpuqd_device_seconds_total", `state="busy"`)), ratePerSecond(ofHost("gpuqd_device_seconds_total"))).as("busy"),
			over(ratePerSecond(ofHost("gpuqd_device_seconds_total", `state="checking"`)), ratePerSecond(ofHost("gpuqd_device_seconds_total"))).as("checking"),
			over(ratePerSecond(ofHost("gpuqd_device_seconds_total", `state=~"cordoned|draining|sick"`)), ratePerSecond(ofHost("gpuqd_device_seconds_total"))).as("out")).share(),
		graph("Memory used", units.BytesIEC, "Of each device, what the driver reserves included.",
			deviceMemory(`host="$host"`).as("{{index}} {{device_uuid}}")),
		graph("Processes", units.Short, "That use each device. On one that no attempt holds there should be none.",
			deviceProcesses(`host="$host"`).as("{{index}} {{device_uuid}}"),
			sumOf(ofHost("gpuqd_device_foreign_processes")).as("of nobody that gpuqd knows")).runbook("DeviceDirty"),
		graph("Faults of devices", units.Short, "In 10 minutes: XIDs by code, devices taken out of use, devices found dirty after an attempt; and breakers that are open.",
			promql(`sum by (xid) (increase(gpuqd_device_xids_total{host="$host"}[10m])) or on () 0 * max (up{host="$host", job="gpuqd"})`).as("XID {{xid}}"),
			promql(`sum by (reason) (increase(gpuqd_device_quarantines_total{host="$host"}[10m]))`).as("out of use: {{reason}}"),
			sumOf(ofHost("gpuqd_device_breakers_open"), "scope").as("open breakers: {{scope}}"),
			promql(`sum (increase(gpuqd_device_checks_total{host="$host", result="dirty"}[10m]))`).as("dirty")).runbook("DeviceXid", "DeviceSick", "BreakerOpen"),
		graph("Memory errors", units.Short, "ECC errors since the driver was loaded, of all devices that count them.",
			sumOf(ofHost("gpuqd_device_ecc_errors"), "kind").as("{{kind}}")).runbook("DeviceSick"),
	}
}

// deviceMemory and deviceProcesses are of each device, with the index that people know it
// by. A device is known by UUID: an index may be another's after a restart.
func deviceMemory(matchers ...string) promql {
	return ofEachDevice("gpuqd_device_memory_used_bytes", matchers)
}

func deviceProcesses(matchers ...string) promql {
	return ofEachDevice("gpuqd_device_processes", matchers)
}

func ofEachDevice(name string, matchers []string) promql {
	return metric(name, matchers...) + " * on (host, device_uuid) group_left (index) " + metric("gpuqd_device_info", matchers...)
}

func hostParts() []panel {
	return []panel{
		graph("Lease", units.Seconds, "How long until it ends: a saw while renewals succeed, a slope when they do not.",
			minOf(ofHost("gpuqd_lease_left_seconds")).as("left")).runbook("LeaseRenewalsFailing"),
		graph("Renewals", units.CountsPerMinute, "Of the lease. fenced: the session was over; deadline_file: the shims could not be told.",
			("60 * " + ratePerSecond(ofHost("gpuqd_lease_renewals_total"))).as("succeeded"),
			("60 * " + ratePerSecond(ofHost("gpuqd_lease_renewals_failed_total"), "reason")).as("failed: {{reason}}")).runbook("LeaseRenewalsFailing"),
		graph("Ledger", units.Seconds, "95 of 100 operations took at most this, in the last 10 minutes.",
			quantile(0.95, ofHost("gpuqd_ledger_operation_duration_seconds"), "operation").as("{{operation}}")).runbook("LedgerSlow", "LedgerQuorumAtRisk"),
		graph("Broker", units.Seconds, "95 of 100 operations took at most this, in the last 10 minutes. publish: until it is confirmed.",
			quantile(0.95, ofHost("gpuqd_broker_operation_duration_seconds"), "operation").as("{{operation}}")),
		graph("Redis", units.Seconds, "95 of 100 operations of the done-cache took at most this, in the last 10 minutes. A gap: none were asked for.",
			quantile(0.95, ofHost("gpuqd_done_cache_operation_duration_seconds"), "operation").as("{{operation}}")),
		graph("Journal of attempts", units.Seconds, "How long an fsync on this host's disk takes, in the last 10 minutes.",
			quantile(0.5, ofHost("gpuqd_journal_sync_duration_seconds")).as("half"),
			quantile(0.95, ofHost("gpuqd_journal_sync_duration_seconds")).as("95 of 100")),
		graph("Connections lost", units.Short, "In 10 minutes, to RabbitMQ, by what the connection is for.",
			promql(`sum by (connection) (increase(gpuqd_broker_connections_lost_total{host="$host"}[10m]))`).as("{{connection}}")).runbook("BrokerConnectionDown"),
		graph("Defects of gpuqd", units.Short, "Loops that have not come round in time, and panics that were contained in 10 minutes. Each is a defect: please report it.",
			maxOf(ofHost("gpuqd_loops_stuck")).as("loops stuck"),
			promql(`sum (increase(gpuqd_panics_total{host="$host"}[10m]))`).as("panics")).runbook("GpuqdStuck", "GpuqdPanics"),
		graph("Clock", units.Seconds, "How far most hosts' clocks lie from this one's. Other than 0, it leaves sweeping to them.",
			maxOf(ofHost("gpuqd_clock_off_seconds")).as("off by")).runbook("ClockOff"),
	}
}

func hostMachine() []panel {
	return []panel{
		graph("CPU", units.PercentUnit, "Share of all cores' time by what they did. iowait: idle, while something waited for a disk.",
			promql(`avg by (mode) (rate(node_cpu_seconds_total{host="$host", mode!="idle"}[$__rate_interval]))`).as("{{mode}}")).share(),
		graph("Memory", units.BytesIEC, "What can still be had, and all there is.",
			sumOf(ofHost("node_memory_MemAvailable_bytes")).as("available"),
			sumOf(ofHost("node_memory_MemTotal_bytes")).as("all")),
		graph("Disks", units.PercentUnit, "How full each file system is. gpuqd takes no work where attempts have no room.",
			promql(`1 - max by (mountpoint) (node_filesystem_avail_bytes{host="$host", fstype!~"tmpfs|ramfs|overlay|squashfs"} / node_filesystem_size_bytes{host="$host", fstype!~"tmpfs|ramfs|overlay|squashfs"})`).as("{{mountpoint}}")).share().runbook("DiskFilling", "DiskAlmostFull"),
		graph("Network", units.BytesPerSecondSI, "What all interfaces but the loopback receive and send.",
			ratePerSecond(ofHost("node_network_receive_bytes_total", `device!="lo"`)).as("received"),
			ratePerSecond(ofHost("node_network_transmit_bytes_total", `device!="lo"`)).as("sent")),
	}
}

func hostLogs() []panel {
	return []panel{
		graph("Lines that arrived", units.Short, "In Loki, in each stretch of the graph, by who wrote them. None at all: the agent does not get through.",
			logql(`sum by (identifier) (count_over_time({job="workers", host="$host"} | identifier=~"gpuqd|gpuqd-shim|gpuqd-job" [$__interval]))`).as("{{identifier}}")).runbook("LogsNotArriving"),
		graph("Lines lost", units.Short, "In 10 minutes, on the way into this host's journal: of gpuqd's own, and of what jobs printed (which is still in their output.log).",
			promql(`sum (increase(gpuqd_log_entries_dropped_total{host="$host"}[10m]))`).as("gpuqd's"),
			promql(`sum (increase(gpuqd_job_output_lines_dropped_total{host="$host"}[10m]))`).as("jobs'")).runbook("GpuqdLogLost", "LogsLost"),
	}
}

func hostLines() []panel {
	const here = `{job="workers", host="$host"} | identifier="gpuqd"`
	return []panel{
		lines("Warnings and errors", "What the daemon of this host says that should be rare.",
			logql(`{job="workers", host="$host", level=~"warning|error|crit|alert|emerg"} | identifier="gpuqd"`).as("")).quiet("No warnings and no errors.").wide(12),
		lines("Everything", "All that the daemon of this host says.", logql(here).as("")).wide(12),
	}
}

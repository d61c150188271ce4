package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

// What several dashboards count.
var (
	allDevices  = metric("gpuqd_devices")
	busyDevices = metric("gpuqd_devices", `state="busy"`)
	outDevices  = metric("gpuqd_devices", `state=~"cordoned|draining|sick"`)
)

// waiting is how many messages wait by queue. Every host reports each queue as it saw it
// at its last look, and a host that is busy looks at none: the host that looked last is
// right. Its look is the one no other is later than.
const waiting = promql(`max by (queue) (gpuqd_queue_messages and on (host, queue) ` +
	`(gpuqd_queue_looked_timestamp_seconds == on (queue) group_left () max by (queue) (gpuqd_queue_looked_timestamp_seconds)))`)

const toHost = "/d/gpuq-host?var-host=${__data.fields.host}&${__url_time_range}"

func fleet() board {
	return board{
		uid: "gpuq-fleet", title: "Fleet", since: "now-6h",
		question: "Are the GPUs busy, is work waiting, is something broken, where, and whose is it?",
		rows: []row{
			section("Now", 5, fleetNow()...),
			section("Work", 8, fleetWork()...),
			section("What is broken, and where", 9, fleetBroken()...),
		},
	}
}

func fleetNow() []panel {
	return []panel{
		number("Devices busy", units.PercentUnit, "Share of all devices that an attempt holds now.",
			over(sumOf(busyDevices), sumOf(allDevices)).as("busy")).share(),
		number("Devices free", units.Short, "Devices that could start a job now.",
			sumOf(metric("gpuqd_devices", `state="free"`)).as("free")),
		number("Devices out", units.Short, "Devices that take no work: cordoned or draining, which an operator wanted, or sick.",
			sumOf(outDevices).as("out")).colour(step{1, orange}).runbook("DeviceSick", "BreakerOpen"),
		number("Jobs waiting", units.Short, "Messages ready in all queues, as the host that looked last saw each.",
			orZero(sumOf(waiting), "gpuqd").as("waiting")),
		number("Longest wait", units.Seconds, "How long the oldest message of any shape has waited. 0 while none is older than take.slack.",
			orZero(maxOf(metric("gpuqd_queue_oldest_seconds")), "gpuqd").as("oldest")).
			colour(step{3600, orange}, step{6 * 3600, red}).runbook("QueueHeadTooOld"),
		number("Alerts firing", units.Short, "Alerts that fire now: the table below names them.",
			orZero(promql(`count(ALERTS{alertstate="firing", alertname!="Watchdog"})`), "prometheus").as("firing")).colour(bad(1)...),
	}
}

func fleetWork() []panel {
	return []panel{
		stack("Devices by state", units.Short, "What all devices of the site are doing. Busy: an attempt holds it. Checking: it is looked at after one. Cordoned, draining and sick take no work.",
			sumOf(allDevices, "state").as("{{state}}")).runbook("DevicesMissing", "DeviceSick"),
		stack("Jobs by state", units.Short, "All jobs that are not over, by the ledger. queued: to be had; waiting: parked until they are released; retrying: until their next attempt is due.",
			maxOf(metric("gpuqd_ledger_jobs"), "state").as("{{state}}")),
		stack("Devices by user", units.Short, "Whose attempts hold devices. GPU hours has the sums.",
			ratePerSecond(held, "user").as("{{user}}")).to("GPU hours", "/d/gpuq-hours?${__url_time_range}"),
		stack("Jobs waiting by queue", units.Short, "Messages ready, as the host that looked last saw each queue. Those that grow while devices are free want looking at.",
			waiting.as("{{queue}}")).runbook("QueueGrowing", "QueueHeadTooOld"),
		graph("Jobs ended", units.CountsPerSecond, "Attempts that ended, by the state their job went to. Discarded: the attempt had lost its right to commit.",
			ratePerSecond(metric("gpuqd_attempts_total"), "outcome").as("{{outcome}}")),
		graph("Submitted and started", units.CountsPerSecond, "New jobs, and attempts started. Where the first stays above the second, queues grow.",
			ratePerSecond(metric("gpuqd_submissions_total", `result="created"`)).as("submitted"),
			ratePerSecond(metric("gpuqd_shim_start_duration_seconds_count")).as("started")),
		graph("Wait for the start", units.Seconds, "From submission to the start of the first attempt, of jobs started in the last 10 minutes.",
			quantile(0.5, metric("gpuqd_job_wait_seconds")).as("half of the jobs"),
			quantile(0.95, metric("gpuqd_job_wait_seconds")).as("95 of 100")).runbook("QueueHeadTooOld"),
		graph("Processing time", units.Seconds, "From the start of an attempt to its end, of those that ended in the last 10 minutes.",
			quantile(0.5, metric("gpuqd_attempt_duration_seconds")).as("half of the attempts"),
			quantile(0.95, metric("gpuqd_attempt_duration_seconds")).as("95 of 100")),
		graph("Use of the devices", units.PercentUnit, "Share of the time of all devices that attempts held them, and that they were out.",
			over(ratePerSecond(metric("gpuqd_device_seconds_total", `state="busy"`)), ratePerSecond(metric("gpuqd_device_seconds_total"))).as("busy"),
			over(ratePerSecond(metric("gpuqd_device_seconds_total", `state=~"cordoned|draining|sick"`)), ratePerSecond(metric("gpuqd_device_seconds_total"))).as("out")).share(),
	}
}

func fleetBroken() []panel {
	return []panel{
		rows("Alerts", units.Short, "Alerts that fire now. Runbooks are in the dashboard of that name.",
			[]column{
				{label: "alertname", title: "alert", links: []link{{"Runbooks", "/d/" + runbooksUID}}},
				{label: "severity", title: "severity"},
				{label: "host", title: "host", links: []link{{"Look at this host", toHost}}},
				{label: "Value", title: "firing"},
			},
			orNone(promql(`count by (alertname, severity, host) (ALERTS{alertstate="firing", alertname!="Watchdog"})`), "prometheus", "alertname").now()),
		rows("Hosts", units.Short, "All hosts that take jobs. What is 0 in the first columns keeps a host from working; click a host to see why.",
			[]column{
				{label: "host", title: "host", links: []link{{"Look at this host", toHost}}},
				{label: "Value #A", title: "answers", unit: units.BoolYesNo},
				{label: "Value #B", title: "takes jobs", unit: units.BoolYesNo},
				{label: "Value #C", title: "ledger", unit: units.BoolYesNo},
				{label: "Value #D", title: "lease left", unit: units.Seconds},
				{label: "Value #E", title: "devices busy"},
				{label: "Value #F", title: "devices out"},
				{label: "Value #G", title: "ended in an hour"},
				{label: "Value #H", title: "failed in an hour"},
			},
			maxOf(metric("up", `job="gpuqd"`), "host").now(),
			maxOf(metric("gpuqd_taking"), "host").now(),
			maxOf(metric("gpuqd_ledger_reachable"), "host").now(),
			maxOf(metric("gpuqd_lease_left_seconds"), "host").now(),
			sumOf(busyDevices, "host").now(),
			sumOf(outDevices, "host").now(),
			promql(`round(sum by (host) (increase(gpuqd_attempts_total[1h])))`).now(),
			promql(`round(sum by (host) (increase(gpuqd_attempts_failed_total{class!~"drained|preempted|killed"}[1h])))`).now(),
		).runbook("GpuqdDown", "GpuqdNotTaking", "LedgerUnreachable", "LedgerLost"),
		bars("What does not answer", units.Short, "Targets that Prometheus does not reach, by job. What they would tell is missing in all dashboards.",
			orNone(promql(`count by (job) (up == 0)`), "prometheus", "job").as("{{job}}")).colour(bad(1)...).wide(12).runbook("HostDown", "TargetDown", "TargetsMissing"),
		graph("Failures by class", units.CountsPerSecond, "Attempts that did not succeed, by class. user: the job's own failure; device and host_lost: ours.",
			ratePerSecond(metric("gpuqd_attempts_failed_total"), "class").as("{{class}}")).runbook("JobsFailingFast"),
		graph("Failures by host", units.CountsPerSecond, "Attempts that failed, by host. One host alone has something wrong with it; all at once, the jobs or what they share.",
			ratePerSecond(metric("gpuqd_attempts_failed_total", `class!~"drained|preempted|killed"`), "host").as("{{host}}")).
			to("Look at this host", "/d/gpuq-host?var-host=${__field.labels.host}&${__url_time_range}").runbook("JobsFailingFast"),
		graph("Failures by user", units.Short, "Attempts that failed in 10 minutes, by whose job it was. One user alone has something wrong with a program.",
			logql(`sum by (submitter) (count_over_time(`+string(ended)+` | state_to=~"failed|retrying|dead" [10m]))`).as("{{submitter}}")).quiet("Nothing has failed.").runbook("JobsFailingFast"),
		graph("XIDs", units.Short, "What drivers reported in 10 minutes, by code. docs/devices.md explains each.",
			orNone(promql(`sum by (xid) (increase(gpuqd_device_xids_total[10m]))`), "gpuqd", "xid").as("XID {{xid}}")).runbook("DeviceXid"),
		graph("Trouble that gpuqd dealt with", units.CountsPerSecond, "Jobs taken over from hosts that were lost, attempts frozen since their lease had ended, commits refused since the job was somebody else's, duplicates turned away.",
			ratePerSecond(metric("gpuqd_takeovers_total")).as("taken over"),
			ratePerSecond(metric("gpuqd_attempts_frozen_total")).as("frozen"),
			ratePerSecond(metric("gpuqd_commits_refused_total")).as("commits refused"),
			ratePerSecond(metric("gpuqd_duplicates_total")).as("duplicates")).runbook("HostLost", "JobsFrozen", "DuplicatesRising"),
	}
}

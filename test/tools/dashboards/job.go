package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

// Lines without a job have no job_id, which LogQL takes for "": without the first filter
// an empty box would show all of them.
const (
	ofJob = logql(`{job="workers"} | job_id!="" | job_id="$job"`)
	// Of one device the table of attempts fills in; several are several rows.
	chosenDevices = `host=~"$host", device_uuid=~"$device"`
)

func jobBoard() board {
	return board{
		uid: "gpuq-job", title: "Job", since: "now-6h",
		question: "What did this job print, on which hosts and devices did its attempts run, and what were those doing?",
		variables: []variable{
			{name: "job", label: "Job", description: "A job's ID, as gpuqctl submit and gpuqctl list print it."},
			{name: "host", label: "Hosts of the graphs", description: "A click in the table of attempts chooses one.", values: `gpuqd_device_info, host`, all: true},
			{name: "device", label: "Devices of the graphs", description: "A click in the table of attempts chooses one.", values: `gpuqd_device_info{host=~"$host"}, device_uuid`, all: true},
		},
		rows: []row{
			section("Attempts: click a host or a device to see its graphs alone", 6, jobAttempts()...),
			section("Devices", 8, jobDevices()...),
			section("Lines", 16, jobLines()...),
		},
	}
}

func jobAttempts() []panel {
	const here = "/d/gpuq-job?var-job=${job}&${__url_time_range}&var-host=${__data.fields.host}"
	return []panel{
		rows("Attempts", units.Short, "On which hosts and devices the job ran, as gpuqd said when it took them, and how many lines there are about each. Those without a device are in the lines below only.",
			[]column{
				{label: "attempt", title: "attempt"},
				{label: "host", title: "host", links: []link{
					{"Graphs of this host's devices", here + "&var-device=$__all"},
					{"Look at this host", toHost},
				}},
				{label: "device_uuid", title: "device", links: []link{{"Graphs of this device", here + "&var-device=${__data.fields.device}"}}},
				{label: "Value #A", title: "lines"},
			},
			logql(`sum by (host, attempt, device_uuid) (count_over_time(`+string(ofJob)+` | device_uuid!="" [$__range]))`).now()).wide(16),
		bars("Lines by attempt", units.Short, "How much each attempt and its shim printed, and how much gpuqd said of it.",
			logql(`sum by (attempt, identifier) (count_over_time(`+string(ofJob)+` [$__range]))`).as("{{attempt}} {{identifier}}")),
	}
}

func jobDevices() []panel {
	return []panel{
		graph("Memory used", units.BytesIEC, "Of each chosen device. What other jobs used before and after is in it.",
			deviceMemory(chosenDevices).as("{{host}}/{{index}}")),
		graph("Processes", units.Short, "That use each chosen device: 0 is idle.",
			deviceProcesses(chosenDevices).as("{{host}}/{{index}}")).runbook("DeviceDirty"),
		graph("Memory used, of all there is", units.PercentUnit, "Of each chosen device: near 1 a job is about to run out of it.",
			promql(string(metric("gpuqd_device_memory_used_bytes", chosenDevices))+" / on (host, device_uuid) group_left () "+
				string(metric("gpuqd_device_memory_bytes", chosenDevices))+" * on (host, device_uuid) group_left (index) "+
				string(metric("gpuqd_device_info", chosenDevices))).as("{{host}}/{{index}}")).share(),
		stack("Devices of the chosen hosts by state", units.Short, "Busy: an attempt holds it.",
			sumOf(metric("gpuqd_devices", `host=~"$host"`), "host", "state").as("{{host}} {{state}}")),
	}
}

func jobLines() []panel {
	return []panel{
		lines("Output", "What all attempts printed, on all hosts, behind host and attempt. The whole output as it was: gpuqctl logs.",
			(ofJob + ` | identifier="gpuqd-job" | line_format "{{.host}} {{.attempt}}  {{__line__}}"`).as("")).wide(14),
		lines("What gpuqd did", "The job's story as the daemons and its shims tell it: claims, starts, ends, hand-overs.",
			(ofJob + ` | identifier=~"gpuqd|gpuqd-shim" | line_format "{{.host}}  {{__line__}}"`).as("")).wide(10),
	}
}

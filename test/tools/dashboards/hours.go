package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

func hours() board {
	return board{
		uid: "gpuq-hours", title: "GPU hours", since: "now-7d",
		question: "Who used how much of the GPUs, with what result, and how much was left?",
		rows: []row{
			section("In the time above", 9, hoursTotals()...),
			section("Over time", 9, hoursOverTime()...),
		},
	}
}

// held is how long attempts have held devices, by whose job it was. ended are the daemons'
// lines about attempts that are over, which say whose job it was, too.
const (
	held  = promql("gpuqd_user_device_seconds_total")
	ended = logql(`{job="workers"} | identifier="gpuqd" | submitter!="" |= "attempt finished" | logfmt state_to`)
)

func hoursTotals() []panel {
	return []panel{
		rows("GPU hours by user", units.Hours, "How long attempts held devices, by whose job it was, those that failed or were interrupted included. other: of users beyond those that a daemon counts by name. What was held while gpuqd was down is not in it.",
			[]column{{label: "user", title: "user"}, {label: "Value", title: "GPU hours"}},
			promql("sort_desc("+string(increase(held, "user"))+" / 3600)").now()).wide(10),
		rows("Attempts by user and result", units.Short, "How many ended, by the state their job went to. retrying and failed are mostly the user's own failures.",
			[]column{{label: "submitter", title: "user"}, {label: "state_to", title: "result"}, {label: "Value #A", title: "attempts"}},
			("sum by (submitter, state_to) (count_over_time(" + ended + " [$__range]))").now()).wide(8),
		number("All devices", units.Hours, "GPU hours that users' attempts held devices, and that there were, whatever devices did.",
			(increase(held) + " / 3600").as("held"),
			(increase(metric("gpuqd_device_seconds_total")) + " / 3600").as("there were")).wide(6),
	}
}

func hoursOverTime() []panel {
	return []panel{
		stack("Devices by user", units.Short, "How many devices each user's attempts held. Parts of a shared device are fractions.",
			ratePerSecond(held, "user").as("{{user}}")),
		stack("Devices by state", units.Short, "What all devices were doing.",
			ratePerSecond(metric("gpuqd_device_seconds_total"), "state").as("{{state}}")),
	}
}

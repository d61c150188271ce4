package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

func hours() board {
	return board{
		uid: "gpuq-hours", title: "GPU hours", since: "now-7d",
		question: "Who used how much of the GPUs, and how much was left?",
		rows: []row{
			section("In the time above", 8, hoursTotals()...),
			section("Over time", 9, hoursOverTime()...),
		},
	}
}

// used is how long attempts held devices, by whose they were.
const used = "gpuqd_user_device_seconds_total"

func hoursTotals() []panel {
	return []panel{
		bars("GPU hours by user", units.Hours, "How long the attempts of each user held devices, those that failed or were interrupted included. other: of users beyond those that a daemon counts by name.",
			promql("sort_desc("+string(increase(metric(used), "user"))+" / 3600)").as("{{user}}")).wide(16),
		number("All users", units.Hours, "GPU hours of all attempts.",
			(increase(metric(used)) + " / 3600").as("used")),
		number("There were", units.Hours, "GPU hours of all devices, whatever they did.",
			(increase(metric("gpuqd_device_seconds_total")) + " / 3600").as("all")),
	}
}

func hoursOverTime() []panel {
	return []panel{
		stack("Devices by user", units.Short, "How many devices each user's attempts held.",
			ratePerSecond(metric(used), "user").as("{{user}}")).wide(24),
		stack("Devices by state", units.Short, "What all devices were doing.",
			ratePerSecond(metric("gpuqd_device_seconds_total"), "state").as("{{state}}")),
		graph("Share of each user", units.PercentUnit, "Of the time that attempts held devices.",
			promql("sum by (user) (rate("+used+"[$__rate_interval])) / on () group_left () (sum (rate("+used+"[$__rate_interval])) > 0)").as("{{user}}")).share(),
	}
}

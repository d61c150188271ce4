package main

import (
	"fmt"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// outcome returns the exit code that stands for a terminal job.
func outcome(row control.JobRow) int {
	switch {
	case row.State == job.Succeeded:
		return exitOK
	case row.State == job.Dead:
		return exitDead
	case row.State == job.Killed:
		return exitKilled
	case row.Class == job.ClassTimeout:
		return exitTimeLimit
	case !row.Class.Counts():
		return exitLost // whatever its command left behind was not its own doing
	case row.ExitCode != nil && *row.ExitCode > 0:
		return *row.ExitCode // 128+N after signal N
	}
	return exitLost
}

// describe says in a few words how a terminal job ended.
func describe(row control.JobRow) string {
	text := string(row.State)
	switch {
	case row.State == job.Succeeded:
		return text
	case row.Signal != "":
		text += " by " + row.Signal
	case row.ExitCode != nil && *row.ExitCode != 0:
		text += fmt.Sprintf(" with exit code %d", *row.ExitCode)
	}
	if row.Class != "" && string(row.Class) != string(row.State) {
		text += fmt.Sprintf(" (%s)", row.Class)
	}
	if row.Reason != "" {
		text += ": " + row.Reason
	}
	return clean(text)
}

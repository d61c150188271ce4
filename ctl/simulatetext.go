package main

import (
	"os"
	"strings"
)

// story is a scenario in words; {host} in a step stands for the host.
type story struct {
	name  string
	steps []string
}

// simulateText is all that simulate says, in one language. Words of the
// glossary, states and what daemons say stay as they are: they are looked for in
// logs and docs.
type simulateText struct {
	noHosts       string
	hosts         string
	hostLine      string // name, free devices, devices, running attempts
	whichHost     string
	scenarios     string
	whichScenario string
	all           string
	notInList     string // what was typed
	title         string // scenario, host, name
	willHappen    string
	goOn          string
	yesWords      []string
	notDone       string
	scenario      [5]story
	lateCommit    []string // the steps of scenario 4 that strikes after the commit

	job         string // ID, pool, devices
	waitReady   string // host
	toldStart   string // attempt, PID, machine, devices
	toldStep    string // attempt, step
	toldFail    string // attempt
	toldEnd     string // attempt
	delivered   string // queue
	redelivered string // queue
	duplicate   string // what turned it away
	adopted     string // attempt
	struck      [5]string
	struckLate  string // scenario 4 that strikes after the commit
	silent      string
	back        string
	interrupted string // ID

	verdict       string // lost, doubled
	noRecovery    string
	recovered     string // seconds, from what to what
	fromTo        [5]string
	fromSilence   string
	notRecovered  string
	good, notGood string
	tookOver      string // host, attempt

	lost        string // state, reason
	noEnd       string // duration
	doubledRuns string // complete executions
	doubledEnds string // results in the history
	starts      string // seen, expected
	noStrike    string // why
	noWhy       string
	notBack     string // host
	noDuplicate string
	noWitness   string // attempt
}

// textFor returns the texts in a language: "en", "ko", or "" for the locale's.
func textFor(lang string) (*simulateText, error) {
	switch lang {
	case "":
		lang = localeLang()
	case "en", "ko":
	default:
		return nil, usagef("--lang: %q is neither en nor ko", lang)
	}
	if lang == "ko" {
		return &koreanText, nil
	}
	return &englishText, nil
}

// localeLang returns "ko" where the locale of messages is a Korean one, else
// "en". The first of the variables that is set counts.
//
// Source: POSIX.1-2017, Base Definitions, 8.2.
func localeLang() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		language, _, _ := strings.Cut(value, ".")
		language, _, _ = strings.Cut(language, "@")
		language, _, _ = strings.Cut(language, "_")
		if strings.EqualFold(language, "ko") {
			return "ko"
		}
		return "en"
	}
	return "en"
}

var englishText = simulateText{
	noHosts:       "no live host allows rehearsals: set allowed = true below [simulate] in a host's gpuqd.toml and restart its gpuqd, or use make up, which does",
	hosts:         "Hosts that allow rehearsals:",
	hostLine:      "%s: %d of %d devices free, %d attempts running",
	whichHost:     "At which host? (number or name)",
	scenarios:     "Scenarios:",
	whichScenario: "Which scenario? (0 to 4, or all)",
	all:           "one after the other",
	notInList:     "%q is not in the list.",
	title:         "Scenario %d at %s: %s",
	willHappen:    "What will happen:",
	goOn:          "Go on? [y/N]",
	yesWords:      []string{"y", "yes"},
	notDone:       "nothing was done",
	scenario: [5]story{
		{"normal, no fault", []string{
			"A job of a few seconds is submitted, for {host} first.",
			"{host} takes it, claims it, runs it, commits its result and acks its message.",
		}},
		{"an error during the job, retried", []string{
			"A job is submitted, for {host} first. Its first attempt exits 1 half way.",
			"The failure counts on the job's budget of 2 attempts, and the job waits for its backoff of 1 s.",
			"Any host that allows rehearsals runs attempt 2 to its end.",
		}},
		{"the worker dies mid-job", []string{
			"A job is submitted, for {host} first, and starts there.",
			"After its first step, gpuqd on {host} kills the job's processes and then itself, with SIGKILL. Other jobs on {host} run on.",
			"The service manager starts gpuqd again. It finds the attempt lost and queues the job again; should it not come back, another host does, when the lease has ended.",
			"Any host that allows rehearsals runs attempt 2 to its end.",
		}},
		{"finished, but the ack is lost (duplicate delivery)", []string{
			"A job is submitted, for {host} first, and runs to its end.",
			"Its result is committed. In place of the ack, the connection to the broker that would carry it is cut.",
			"The broker delivers the message again, with all else that was open on that connection.",
			"{host} turns the duplicate away: the job is over.",
		}},
		{"the worker dies after the work, before the ack", []string{
			"A job is submitted, for {host} first, and runs to its end.",
			"Once its exit is on disk, and before anything is committed, gpuqd on {host} kills itself with SIGKILL. Other jobs on {host} run on.",
			"The service manager starts gpuqd again. It finds the exit on disk and commits the result; nothing runs again.",
			"The broker delivers the message again, and {host} turns it away.",
		}},
	},
	lateCommit: []string{
		"A job is submitted, for {host} first, and runs to its end.",
		"Once its result is committed, and before the ack, gpuqd on {host} kills itself with SIGKILL. Other jobs on {host} run on.",
		"The service manager starts gpuqd again.",
		"The broker delivers the message again, and {host} turns it away: the job is over.",
	},

	job:         "Job %s, pool %s, devices: %d",
	waitReady:   "%s is not ready yet; waiting for it",
	toldStart:   "attempt %d starts: PID %d on %s, devices %s",
	toldStep:    "attempt %d: step %d",
	toldFail:    "attempt %d fails: exit 1",
	toldEnd:     "attempt %d: the work is done",
	delivered:   "message delivered from %s",
	redelivered: "message delivered again from %s",
	duplicate:   "duplicate turned away (%s)",
	adopted:     "attempt %s found in the journal",
	struck: [5]string{
		2: "FAULT: the job's processes and gpuqd are killed",
		3: "FAULT: no ack; the connection to the broker is cut",
		4: "FAULT: gpuqd is killed, the result is not committed",
	},
	struckLate:  "FAULT: gpuqd is killed, the message is not acked",
	silent:      "does not answer",
	back:        "answers again, as a new process",
	interrupted: "interrupted: the fault is disarmed, and job %s is killed",

	verdict:    "Verdict: lost %d, doubled %d, %s",
	noRecovery: "nothing to recover from",
	recovered:  "recovered in %.1f s (%s)",
	fromTo: [5]string{
		1: "from the failure to the start of attempt 2",
		2: "from the fault to the start of attempt 2",
		3: "from the fault to the duplicate turned away",
		4: "from the fault until gpuqd was back and had turned the duplicate away",
	},
	fromSilence:  "from the silence of the host to the start of attempt 2",
	notRecovered: "recovery not seen",
	good:         "GOOD",
	notGood:      "NOT GOOD",
	tookOver:     "%s ran attempt %d.",

	lost:        "the job is %s: %s",
	noEnd:       "the job had not ended after %s, and was killed",
	doubledRuns: "the work was done %d times",
	doubledEnds: "the history has %d final results",
	starts:      "the witness has %d starts, and %d were to be expected",
	noStrike:    "the fault did not strike: %s",
	noWhy:       "its step did not come at this host",
	notBack:     "%s has not come back: start its gpuqd",
	noDuplicate: "no duplicate was seen to be turned away",
	noWitness:   "not all that attempt %d wrote could be read",
}

package watch

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/test/campaign"
	"gpuqd/test/monitoring"
)

// unprovoked are the alerts that no fault brings here, each with the reason.
var unprovoked = map[string]string{
	"ClockOff":            "the daemons of one machine have one clock",
	"GpuqdPanics":         "takes a defect of gpuqd",
	"GpuqdStuck":          "loops are watched only where systemd's watchdog asks for it",
	"LedgerQuorumAtRisk":  "takes three hosts with mongod under systemd",
	"RedisWithoutReplica": "takes Redis with a replica; the local cluster has one Redis",
	"ServiceFailed":       "takes systemd",
	"ServiceRestarting":   "takes systemd",
}

const (
	page  = "../../docs/reliability.md"
	rules = "../../ansible/roles/prometheus/files/rules"
)

// siteAlerts returns the alerts of a site, in the order of their files.
func siteAlerts(t *testing.T) (alerts []monitoring.Rule) {
	t.Helper()
	all, err := monitoring.Rules(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Alert != "" {
			alerts = append(alerts, r)
		}
	}
	return alerts
}

// faults returns the fault that each alert is provoked by.
func faults(t *testing.T) map[string]string {
	t.Helper()
	by := map[string]string{}
	for _, h := range histories() {
		for _, p := range h.provocations {
			for _, w := range p.alerts {
				if by[w.alert] != "" {
					t.Errorf("%s is provoked twice", w.alert)
				}
				by[w.alert] = p.fault
			}
		}
	}
	return by
}

func TestEveryAlertIsProvokedOrSaysWhyNot(t *testing.T) {
	by, known := faults(t), map[string]bool{}
	for _, a := range siteAlerts(t) {
		known[a.Alert] = true
		if (by[a.Alert] == "") == (unprovoked[a.Alert] == "") {
			t.Errorf("%s: want either a fault (%q) or a reason why there is none (%q)", a.Alert, by[a.Alert], unprovoked[a.Alert])
		}
	}
	for _, list := range []map[string]string{by, unprovoked} {
		for alert := range list {
			if !known[alert] {
				t.Errorf("there is no alert %s", alert)
			}
		}
	}
}

// seconds finds, in a row of the page, an alert and how long after its fault it came.
var seconds = regexp.MustCompile(`(?m)^\| \[(\w+)\]\([^)]*\) \| .* \| ([0-9]+\.[0-9]) \| [^|]* \|$`)

// onPage returns the seconds that a page has.
func onPage(t *testing.T, text []byte) map[string]time.Duration {
	t.Helper()
	came := map[string]time.Duration{}
	for _, row := range seconds.FindAllSubmatch(text, -1) {
		s, err := strconv.ParseFloat(string(row[2]), 64)
		if err != nil {
			t.Fatal(err)
		}
		came[string(row[1])] = time.Duration(s * float64(time.Second))
	}
	return came
}

// TestPageHasEveryAlert holds the page to rules and faults; of a run it has the seconds.
func TestPageHasEveryAlert(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	came := onPage(t, text)
	for alert := range faults(t) {
		if came[alert] == 0 {
			t.Errorf("%s has no seconds for %s", page, alert)
		}
	}
	if _, part := campaign.Parts(text); !bytes.Equal(part, alertsPart(t, came)) {
		t.Errorf("%s is not what rules and faults say: UPDATE=1 make e2e/monitoring", page)
	}
}

const alertsIntro = campaign.PageEnd + `

## Alerts, and the faults that bring them

<!-- Written by test/watch: run ` + "`UPDATE=1 make e2e/monitoring`" + `, do not edit. -->

Each fault below was done for real to a local cluster: three RabbitMQ nodes, Redis, three daemons with two simulated
devices each, on SQLite (LedgerSlow: on the stand-in for MongoDB), watched by real Prometheus, Alertmanager, Loki and, for each
daemon, journald, Promtail and node exporter. The alert was not there before, came to Alertmanager so many seconds after the
fault, and was over after it was mended.

The rules are a site's with all times divided by 60 (windows are at least 5 s), scraped and evaluated every second; the
lease is 15 s and not 5 minutes. *At a site* is how long the rule waits there once its condition holds; a scrape (15 s)
and what the condition itself takes come before that.

| Alert | Fault | after, s | at a site |
| --- | --- | ---: | ---: |
`

const unprovokedIntro = `
Not provoked here; promtool's cases (` + "`test/monitoring`" + `) have them fire:

| Alert | Why not | at a site |
| --- | --- | ---: |
`

const alertsEnd = `
AlertmanagerUnreachable cannot come to Alertmanager by its own fault: it was looked for in Prometheus. What tells people
then is Watchdog, which does not come any more.
`

// alertsPart is the page's part on alerts.
func alertsPart(t *testing.T, came map[string]time.Duration) []byte {
	t.Helper()
	var b, not strings.Builder
	b.WriteString(alertsIntro)
	by := faults(t)
	for _, a := range siteAlerts(t) {
		waits := a.For
		if waits == "" {
			waits = "0s"
		}
		link := fmt.Sprintf("[%s](runbooks/%[1]s.md)", a.Alert)
		if why := unprovoked[a.Alert]; why != "" {
			fmt.Fprintf(&not, "| %s | %s | %s |\n", link, why, waits)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f | %s |\n", link, by[a.Alert], came[a.Alert].Seconds(), waits)
	}
	return []byte(b.String() + unprovokedIntro + not.String() + alertsEnd)
}

// writePage writes the page after a run, where that is asked for. Of alerts that were not
// provoked this time the page keeps what it has.
func writePage(t *testing.T, came map[string]time.Duration) {
	t.Helper()
	if os.Getenv("UPDATE") == "" {
		return
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	all := onPage(t, text)
	maps.Copy(all, came)
	theirs, _ := campaign.Parts(text)
	if err := os.WriteFile(page, append(theirs, alertsPart(t, all)...), 0o644); err != nil {
		t.Fatal(err)
	}
}

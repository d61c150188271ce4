package agent

import (
	"context"
	"errors"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the agent counts as it happens; what it only has to look at
// is in scrape.go. The zero metrics count nothing. docs/metrics.md lists all.
type metrics struct {
	wanted bool // somebody may ask for them

	submissions counters

	takes, redeliveries counter
	queuesAvoided       counter
	bells               counter
	claims              counter
	claimsRefused       counters
	duplicates          counters
	acks                counters
	givenBack           counter
	adoptions           counter

	attempts        counters
	attemptsFailed  counters
	attemptsFrozen  counters
	frozenSeconds   counter
	linesDropped    counter
	attemptDuration histogram
	jobWait         histogram
	shimStart       histogram
	shimStartFailed counter
	deviceGap       histogram

	commits, commitsRefused counter
	retries                 counter
	requeues                counters
	jobsExpired             counter
	deadLetters             counter
	deadLettersRecorded     counter
	republished             counter
	panics                  counter
	rehearsals              counters

	renewals         counter
	renewalsFailed   counters
	renewalDuration  histogram
	sessionsExpired  counter
	sessionsLost     counter
	sessionsReleased counters
	takeovers        counter

	queueMessages, queueLooked gauges
	queueOldest                gauges
	clockOff                   gauge
	loopsStuck                 gauge

	controlRequests controlRequests
}

// newMetrics registers the agent's metrics; without a Registerer there are none.
func newMetrics(to prometheus.Registerer) *metrics {
	if to == nil {
		return &metrics{}
	}
	m, r := &metrics{wanted: true}, register{to}
	m.ofTakes(r)
	m.ofAttempts(r)
	m.ofJobs(r)
	m.ofHosts(r)
	m.ofQueues(r)
	m.controlRequests = newControlRequests(r)
	return m
}

func (m *metrics) ofTakes(r register) {
	m.takes = r.counter("gpuqd_takes_total", "Messages taken from job queues.")
	m.redeliveries = r.counter("gpuqd_redeliveries_total", "Messages taken that had been delivered before.")
	m.queuesAvoided = r.counter("gpuqd_queues_avoided_total", "Times that a queue was passed over for a while, since looking at it failed.")
	m.bells = r.counter("gpuqd_bells_total", "Bells heard: hints that a queue has work.")
	m.claims = r.counter("gpuqd_claims_total", "Claims won.")
	m.claimsRefused = r.counters("gpuqd_claims_refused_total", "Claims that the ledger did not grant, by what it said of the job.",
		"reason", "over", "own", "held", "raced", "not_due", "waiting", "not_found", "unreadable", "unknown")
	m.duplicates = r.counters("gpuqd_duplicates_total",
		"Deliveries acked without a run: of jobs that are over (done_cache, ledger), of this host's own jobs (own), and of jobs that somebody else answers for (held).",
		"source", "done_cache", "ledger", "own", "held")
	m.acks = r.counters("gpuqd_acks_total", "Acks of job messages: sent, not sent since the delivery was of an earlier connection (stale), or failed.",
		"result", "sent", "stale", "failed")
	m.givenBack = r.counter("gpuqd_given_back_total", "Messages given back to their queue.")
	m.adoptions = r.counter("gpuqd_adoptions_total", "Attempts of an earlier daemon that this one carries on.")
}

func (m *metrics) ofAttempts(r register) {
	m.attempts = r.counters("gpuqd_attempts_total",
		"Attempts ended, by the state that their job went to; discarded ones had lost their right to commit.",
		"outcome", "succeeded", "failed", "retrying", "queued", "killed", "dead", "discarded")
	m.attemptsFailed = r.counters("gpuqd_attempts_failed_total", "Attempts committed that did not succeed, by class.", "class", classNames()...)
	m.attemptsFrozen = r.counters("gpuqd_attempts_frozen_total",
		"Attempts that were frozen at the end of the lease, by how that ended; known when the attempt is over.", "end", "thawed", "stopped")
	m.linesDropped = r.counter("gpuqd_job_output_lines_dropped_total",
		"Lines of jobs' output that journald did not get; known when the attempt is over.")
	m.frozenSeconds = r.counter("gpuqd_attempt_frozen_seconds_total", "Time that attempts were frozen; known when the attempt is over.")
	m.attemptDuration = r.histogram("gpuqd_attempt_duration_seconds", "Time from an attempt's start to its end, frozen time included.", longBuckets)
	m.jobWait = r.histogram("gpuqd_job_wait_seconds", "Time from a job's submission to the start of its first attempt, by the two hosts' wall clocks.", longBuckets)
	m.shimStart = r.histogram("gpuqd_shim_start_duration_seconds", "Time to start a shim until it has started the command.", shortBuckets)
	m.shimStartFailed = r.counter("gpuqd_shim_starts_failed_total", "Shims that did not report a start.")
	m.deviceGap = r.histogram("gpuqd_device_gap_seconds", "Time that a device was nobody's between two attempts, with work waiting or without.", longBuckets)
}

func (m *metrics) ofJobs(r register) {
	m.submissions = r.counters("gpuqd_submissions_total",
		"Submissions, by what became of them.", "result", "created", "existing", "refused", "unknown")
	m.commits = r.counter("gpuqd_commits_total", "Results and releases that the ledger took.")
	m.commitsRefused = r.counter("gpuqd_commits_refused_total", "Results that the ledger refused: the job was no longer this attempt's.")
	m.retries = r.counter("gpuqd_retries_total", "Attempts after which the job waits for another on its budget.")
	m.requeues = r.counters("gpuqd_requeues_total",
		"Attempts after which the job went back to its queue at no cost, by class; released ones were never started.",
		"class", append(requeueClasses(), "released")...)
	m.jobsExpired = r.counter("gpuqd_jobs_expired_total", "Jobs ended by this host because they had not started in time.")
	m.deadLetters = r.counter("gpuqd_dead_letters_total", "Messages set aside with their reason.")
	m.deadLettersRecorded = r.counter("gpuqd_dead_letters_recorded_total", "Dead letters brought from the broker into the ledger.")
	m.republished = r.counter("gpuqd_republished_total", "Messages published again by the sweeper because they were lost.")
	m.panics = r.counter("gpuqd_panics_total", "Panics contained in the handling of one job.")
	m.rehearsals = r.counters("gpuqd_rehearsals_total", "Rehearsals of faults begun at this host, by scenario.", "scenario", "0", "1", "2", "3", "4")
}

func (m *metrics) ofHosts(r register) {
	m.renewals = r.counter("gpuqd_lease_renewals_total", "Lease renewals that succeeded.")
	m.renewalsFailed = r.counters("gpuqd_lease_renewals_failed_total",
		"Lease renewals that did not succeed, or of which the shims could not be told (deadline_file).",
		"reason", "unreachable", "fenced", "deadline_file")
	m.renewalDuration = r.histogram("gpuqd_lease_renewal_duration_seconds", "Time of a renewal on the ledger, whether it succeeded or not.", shortBuckets)
	m.sessionsExpired = r.counter("gpuqd_sessions_expired_total", "Sessions of other hosts that this host marked expired.")
	m.sessionsReleased = r.counters("gpuqd_sessions_released_total", "Shutdowns of this host, by whether its session was released before.", "result", "released", "failed")
	m.sessionsLost = r.counter("gpuqd_sessions_lost_total", "Own sessions that this host found to be over.")
	m.takeovers = r.counter("gpuqd_takeovers_total", "Jobs requeued or ended because their session was not live.")
	m.loopsStuck = r.gauge("gpuqd_loops_stuck", "Loops past their allowance, at the watchdog's last turn; 0 without a service manager.")
	m.clockOff = r.gauge("gpuqd_clock_off_seconds", "How far most live hosts' clocks lie from this one's; 0 while most agree with it.")
}

func (m *metrics) ofQueues(r register) {
	m.queueMessages = r.gauges("gpuqd_queue_messages", "Messages ready in a job queue when this host last looked.", "queue")
	m.queueLooked = r.gauges("gpuqd_queue_looked_timestamp_seconds", "When this host last looked at the queue's depth.", "queue")
	m.queueOldest = r.gauges("gpuqd_queue_oldest_seconds",
		"Age of the oldest message of a shape as the ledger knew it at this host's last sweep; 0 while none is older than take.slack.", "queue")
}

// classNames lists every class of failure.
func classNames() []string { return namesOf(job.Classes) }

// requeueClasses lists the classes whose attempts cost a job nothing.
func requeueClasses() []string {
	var free []job.Class
	for _, c := range job.Classes {
		switch {
		case c.Counts(), c == job.ClassKilled, c == job.ClassPoison, c == job.ClassExpired, c == job.ClassRefused:
		default:
			free = append(free, c)
		}
	}
	return namesOf(free)
}

func namesOf[T ~string](list []T) []string {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = string(v)
	}
	return names
}

// countRefusal counts a claim that the job's document refused.
func (m *metrics) countRefusal(j *job.Job, session string) {
	reason := "held"
	switch {
	case j.State.Terminal():
		reason = "over"
	case j.State.Held() && j.Owner.Session == session:
		reason = "own"
	case j.State == job.Queued:
		reason = "raced"
	case j.State == job.Retrying:
		reason = "not_due"
	case j.State == job.Waiting:
		reason = "waiting"
	}
	m.claimsRefused.WithLabelValues(reason).Inc()
}

// countExit counts what a shim told of an attempt that is over.
func (m *metrics) countExit(exit *runner.Exit) {
	if !exit.Lost { // the shim of a lost one left no times
		m.attemptDuration.Observe(exit.DurationSeconds)
	}
	m.linesDropped.Add(float64(exit.JournalDroppedLines))
	if exit.FrozenSeconds == 0 {
		return
	}
	m.frozenSeconds.Add(exit.FrozenSeconds)
	end := "thawed"
	switch exit.StopReason {
	case runner.StopFreezeMax, runner.StopLeaseLost, runner.StopSessionExpired, runner.StopFenced:
		end = "stopped"
	}
	m.attemptsFrozen.WithLabelValues(end).Inc()
}

// countCommit counts a verdict that the ledger took; state is what it made of
// the job.
func (m *metrics) countCommit(state job.State, class job.Class) {
	m.commits.Inc()
	m.attempts.WithLabelValues(string(state)).Inc()
	if class != "" {
		m.attemptsFailed.WithLabelValues(string(class)).Inc()
	}
	switch {
	case state == job.Retrying:
		m.retries.Inc()
	case state == job.Queued && class == "":
		m.requeues.WithLabelValues("released").Inc()
	case state == job.Queued:
		m.requeues.WithLabelValues(string(class)).Inc()
	}
}

// countOldest notes the age of a queue's oldest message, if there is one that is
// overdue.
func (m *metrics) countOldest(queue string, now job.Time, overdue []*job.Job) {
	age := 0.
	if len(overdue) > 0 {
		age = now.Sub(overdue[0].PublishedAt.Time).Seconds()
	}
	m.queueOldest.WithLabelValues(queue).Set(age)
}

// countDepth notes what a look at a queue's depth told.
func (m *metrics) countDepth(queue string, depth int, now time.Time) {
	m.queueMessages.WithLabelValues(queue).Set(float64(depth))
	m.queueLooked.WithLabelValues(queue).Set(float64(now.UnixMilli()) / 1000)
}

// countRenewal counts a renewal by its error.
func (m *metrics) countRenewal(err error, took time.Duration) {
	m.renewalDuration.Observe(took.Seconds())
	switch {
	case err == nil:
		m.renewals.Inc()
	case errors.Is(err, ledger.ErrSessionLost):
		m.renewalsFailed.WithLabelValues("fenced").Inc()
	default:
		m.renewalsFailed.WithLabelValues("unreachable").Inc()
	}
}

// countAck counts an ack by its error.
func (m *metrics) countAck(err error) {
	result := "sent"
	switch {
	case errors.Is(err, broker.ErrStaleTag):
		result = "stale"
	case err != nil:
		result = "failed"
	}
	m.acks.WithLabelValues(result).Inc()
}

// countStart counts the start of a shim by its error; one that this daemon did
// not wait for, since it ends, is neither.
func (m *metrics) countStart(ctx context.Context, err error, took time.Duration) {
	switch {
	case err == nil:
		m.shimStart.Observe(took.Seconds())
	case ctx.Err() == nil:
		m.shimStartFailed.Inc()
	}
}

// controlRequests count the requests of operators.
type controlRequests struct {
	total    *prometheus.CounterVec // by verb and code; nil counts nothing
	duration prometheus.Histogram
}

func newControlRequests(r register) controlRequests {
	c := controlRequests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gpuqd_control_requests_total",
			Help: "Requests of gpuqctl and other clients, by verb and code; ok is none of the codes of failure.",
		}, []string{"verb", "code"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gpuqd_control_request_duration_seconds", Help: "Time to answer a request, held ones (states with wait) included.", Buckets: shortBuckets,
		}),
	}
	r.MustRegister(c.total, c.duration)
	for _, verb := range control.Verbs() {
		c.total.WithLabelValues(string(verb), control.OK)
	}
	return c
}

// count is a control.Options.Observe.
func (c controlRequests) count(verb, code string, took time.Duration) {
	if c.total == nil {
		return
	}
	c.total.WithLabelValues(verb, code).Inc()
	c.duration.Observe(took.Seconds())
}

package sim

// steps are the steps of the protocol at which faults strike, as the parts name
// them. TestEveryStepIsReached holds the list to what histories really do.
var steps = []string{
	// submit
	"ledger submit", "broker publish",
	// take
	"broker depth", "broker take", "redis done", "ledger claimed", "disk begin", "shim lock", "shim started", "shim exec",
	"ledger running", "shim exit",
	// commit, retry, requeue
	"ledger succeeded", "ledger failed", "ledger retrying", "ledger queued", "ledger killed", "redis store", "broker publish retry",
	"broker ack", "broker nack",
	// lease and takeover
	"ledger renew", "ledger takeover", "ledger open session", "ledger end session", "ledger list hosts", "ledger find jobs",
	// sweep
	"ledger republish",
	// hold, release, drain
	"ledger hold", "ledger release", "ledger drain",
	// start-up
	"ledger read host", "ledger read job",
}

// otherSteps are the rest: chance strikes at those above, TestFaultAtEveryStep at
// all of them.
var otherSteps = []string{
	"broker submit", "broker submit delivery", "broker submit ack", "broker reply", "broker request", "broker control delivery",
	"broker consume", "broker cancel", "broker declare", "redis probe",
	"ledger open", "ledger probe", "ledger shape", "ledger list shapes", "ledger event", "ledger flag kill", "ledger dead",
	"disk start", "disk stop", "disk revoke", "disk lost", "disk verdict", "disk deadline", "shim stopping", "shim revoked",
	"ledger insert host", "ledger read meta", "broker connect", "broker submit nack", "broker control ack",
}

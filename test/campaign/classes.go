package campaign

import "time"

// Class is a kind of fault.
type Class string

// The classes.
const (
	DaemonKilled     Class = "daemon_killed"
	ShimKilled       Class = "shim_killed"
	TreeKilled       Class = "tree_killed"
	HostKilled       Class = "host_killed"
	DaemonFrozen     Class = "daemon_frozen"
	BrokerKilled     Class = "broker_killed"
	BrokerFrozen     Class = "broker_frozen"
	RedisKilled      Class = "redis_killed"
	LedgerLost       Class = "ledger_lost"
	DiskAlarm        Class = "disk_alarm"
	DiskFull         Class = "disk_full"
	EverythingKilled Class = "everything_killed"
	// DeliveryTimeout is not struck by a plan: the broker does it to every
	// delivery that is open for longer than its consumer_timeout.
	DeliveryTimeout Class = "consumer_timeout"
)

// target is what a class of faults hits.
type target int

const (
	aWorker   target = iota // one of the daemons, or its host
	aNode                   // one of the broker's nodes
	anAttempt               // whatever runs then
	shared                  // what all hosts share
)

// kind is what all faults of a class have in common.
type kind struct {
	class  Class
	target target
	// How long it lasts, drawn between the two; both 0: it is over at once.
	lastsMin, lastsMax time.Duration
	// fromEnd counts the time to normal work from the fault's end, since there
	// can be none while it lasts; else it counts from its beginning.
	fromEnd bool
	what    string // for the report
}

// kinds lists what a plan draws from.
var kinds = []kind{
	{DaemonKilled, aWorker, 0, 0, false, "kill -9 of a daemon, which its supervisor starts again"},
	{ShimKilled, anAttempt, 0, 0, false, "kill -9 of the shim of a running attempt"},
	{TreeKilled, anAttempt, 0, 0, false, "kill -9 of everything that an attempt's shim has started"},
	{HostKilled, aWorker, sec(2), sec(34), true, "kill -9 of a daemon with all its shims and jobs, kept down beyond the lease in about every second case"},
	{DaemonFrozen, aWorker, sec(24), sec(40), true, "SIGSTOP of a daemon beyond its lease (15 s and 5 s of grace), then SIGCONT"},
	{BrokerKilled, aNode, 0, sec(20), false, "kill -9 of a RabbitMQ node, kept down for a while"},
	{BrokerFrozen, aNode, sec(3), sec(25), false, "SIGSTOP of a RabbitMQ node, then SIGCONT"},
	{RedisKilled, shared, 0, sec(15), false, "kill -9 of Redis, whose data is lost, kept down for a while"},
	{LedgerLost, shared, sec(1), sec(30), true, ""}, // ledgerWhat says it, by the kind of ledger
	{DiskAlarm, aNode, sec(3), sec(25), true, "disk alarm of a RabbitMQ node (its free limit set above the disk): the cluster takes no messages"},
	{DiskFull, aWorker, sec(5), sec(30), true, "no space left in a daemon's state directory (a tmpfs that is kept full)"},
	{EverythingKilled, shared, 0, 0, false, "kill -9 of all RabbitMQ nodes and all daemons at once"},
}

// Classes lists the classes that a plan draws from.
func Classes() []Class {
	var list []Class
	for _, k := range kinds {
		list = append(list, k.class)
	}
	return list
}

func kindOf(class Class) kind {
	for _, k := range kinds {
		if k.class == class {
			return k
		}
	}
	return kind{class: class}
}

func sec(n int) time.Duration { return time.Duration(n) * time.Second }

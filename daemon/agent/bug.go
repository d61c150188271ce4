package agent

// Bug names a mistake that this protocol is known to invite. Builds with the tag
// planted can make it on purpose, to prove that the simulation catches it; in all
// others bugged is false by its text, and nothing of the bug is left.
type Bug string

// The bugs that can be planted.
const (
	AckBeforeCommit      Bug = "ack_before_commit"      // the message goes before the result is safe
	AckAcrossGenerations Bug = "ack_across_generations" // a tag is used on a later connection
	FenceFromRedis       Bug = "fence_from_redis"       // the cache says who may run a job, not the ledger
	TrustVanishedUnit    Bug = "trust_vanished_unit"    // what has vanished is taken to have succeeded
	WallClockTakeover    Bug = "wall_clock_takeover"    // leases are judged by wall clocks
	DepthZeroIsEmpty     Bug = "depth_zero_is_empty"    // a depth of 0 is taken for proof
	DoneCacheOnRequeue   Bug = "done_cache_on_requeue"  // the cache answers for a job that was put back
	ReleaseUnrevoked     Bug = "release_unrevoked"      // an attempt is released while a late shim can start it
	MessageReleases      Bug = "message_releases"       // a message of a held job is taken for its release
	DrainUnread          Bug = "drain_unread"           // a drain is believed when told, and not read from the ledger
	DrainCharged         Bug = "drain_charged"          // what was ended for a drain is taken to have failed
	ReleaseRunning       Bug = "release_running"        // a host that goes down releases its session while its attempts run
	HalfShare            Bug = "half_share"             // half of what a job asks of a shared device is granted to it
	KindUnread           Bug = "kind_unread"            // every device passes for whatever is asked for
)

// Bugs lists them.
var Bugs = []Bug{
	AckBeforeCommit, AckAcrossGenerations, FenceFromRedis, TrustVanishedUnit, WallClockTakeover, DepthZeroIsEmpty,
	DoneCacheOnRequeue, ReleaseUnrevoked, MessageReleases, DrainUnread, DrainCharged, ReleaseRunning,
	HalfShare, KindUnread,
}

package job

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// rehearsalPrefix begins the pools of rehearsals. They are reserved: no host
// serves one by configuration, and only operators submit to one.
const rehearsalPrefix = "simulate-"

// rehearsalNameMax is what a pool's name leaves for the host's.
const rehearsalNameMax = 32 - len(rehearsalPrefix)

// RehearsalPool returns the pool whose first deliveries go to one host, for
// rehearsals of faults at it. A name that is too long for a pool stands in it by
// its hash.
func RehearsalPool(host string) string {
	if len(host) > rehearsalNameMax {
		sum := sha256.Sum256([]byte(host))
		host = hex.EncodeToString(sum[:])[:rehearsalNameMax]
	}
	return rehearsalPrefix + host
}

// IsRehearsalPool reports whether a pool is some host's for rehearsals.
func IsRehearsalPool(pool string) bool { return strings.HasPrefix(pool, rehearsalPrefix) }

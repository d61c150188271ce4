package job

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Priority orders the queues of a pool. It is a closed set, since each priority
// is a queue of its own.
type Priority string

// The priorities, highest first.
const (
	High   Priority = "high"
	Normal Priority = "normal"
	Low    Priority = "low"
)

// Priorities lists every priority, highest first.
var Priorities = []Priority{High, Normal, Low}

// Rank returns 0 for the highest priority and grows downwards.
func (p Priority) Rank() int {
	for i, q := range Priorities {
		if p == q {
			return i
		}
	}
	return len(Priorities)
}

// ClassAny is the constraint class of a job that any device of its pool can
// run; Constraints has the others. (Not to be confused with Class, the class of a failure.)
const ClassAny = "any"

// queuePrefix starts the name of every queue that holds jobs.
const queuePrefix = "gpuq.job."

// classAgain is no class: its queue would look like another shape's again queue.
const classAgain = "again"

// againSuffix ends the name of the queue that republished jobs of a shape wait
// in; it is looked at before the plain one.
const againSuffix = ".again"

// Shape is what a job needs of one host, reduced to the queue it waits in.
type Shape struct {
	Pool     string   `json:"pool"`
	Priority Priority `json:"priority"`
	GPUs     int      `json:"gpus"`
	Class    string   `json:"class"` // canonical set of constraints; ClassAny for most
}

// Patterns are compiled on first use: the shim imports this package and needs
// none of them.
var (
	poolPattern  = pattern(`^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$`)
	classPattern = pattern(`^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$`)
)

func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// Queue returns the name of the shape's plain queue:
// gpuq.job.<pool>.<priority>.g<N>.<class>.
func (s Shape) Queue() string {
	return fmt.Sprintf("%s%s.%s.g%d.%s", queuePrefix, s.Pool, s.Priority, s.GPUs, s.Class)
}

// AgainQueue returns the name of the queue for the shape's republished jobs.
func (s Shape) AgainQueue() string { return s.Queue() + againSuffix }

// String returns the shape's name, which is its queue's.
func (s Shape) String() string { return s.Queue() }

// ParseQueue returns the shape that a queue belongs to, plain or again.
func ParseQueue(name string) (Shape, error) {
	rest, ok := strings.CutPrefix(name, queuePrefix)
	parts := strings.Split(strings.TrimSuffix(rest, againSuffix), ".")
	if !ok || len(parts) != 4 {
		return Shape{}, fmt.Errorf("%q is no job queue: want gpuq.job.<pool>.<priority>.g<N>.<class>", name)
	}
	gpus, err := strconv.Atoi(strings.TrimPrefix(parts[2], "g"))
	s := Shape{Pool: parts[0], Priority: Priority(parts[1]), GPUs: gpus, Class: parts[3]}
	if err != nil || s.Queue() != strings.TrimSuffix(name, againSuffix) || s.Priority.Rank() == len(Priorities) ||
		!poolPattern().MatchString(s.Pool) || !classPattern().MatchString(s.Class) || s.Class == classAgain || gpus < 0 {
		return Shape{}, fmt.Errorf("%q is no job queue: want gpuq.job.<pool>.<priority>.g<N>.<class>", name)
	}
	return s, nil
}

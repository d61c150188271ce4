package supervisor

import (
	"syscall"
	"time"

	"gpuqd/test/services"
)

// Unit is one process that is to be kept running.
type Unit struct {
	// Process is owned by the supervisor from Add on; its Name names the unit.
	Process *services.Process
	Port    int // that the process listens on, for people; 0 is none
	// Check is asked before each start: what it finds wrong, such as a port
	// that is taken, a person must mend. Nil finds nothing.
	Check func() error
	// ReadyTimeout bounds one start; a process that is not ready then is killed
	// and started again. 0 is a minute.
	ReadyTimeout time.Duration
	// StopGrace lies between SIGTERM and SIGKILL. 0 is ten seconds.
	StopGrace time.Duration
	// Fingerprint tells whether a process that was found running is what would
	// be started now. Another one is ended and started anew.
	Fingerprint string
}

// Phase is where a unit is in its life.
type Phase string

// The phases of a unit.
const (
	Starting Phase = "starting" // launched, not ready yet
	Running  Phase = "running"
	Pausing  Phase = "pausing" // it ended; started again after a pause
	Down     Phase = "down"    // kept down
)

// Status is what can be said of a unit.
type Status struct {
	Name     string    `json:"name"`
	Phase    Phase     `json:"phase"`
	Pid      int       `json:"pid,omitempty"`
	Port     int       `json:"port,omitempty"`
	Since    time.Time `json:"since"`    // when it entered its phase
	Restarts int       `json:"restarts"` // starts that nobody asked for
	// Failures are the starts in a row that came to nothing.
	Failures int `json:"failures,omitempty"`
	// Blocked says that Check refuses the start: see Problem.
	Blocked bool   `json:"blocked,omitempty"`
	Problem string `json:"problem,omitempty"` // how it last ended
	Adopted bool   `json:"adopted,omitempty"` // started by an earlier supervisor
	LogPath string `json:"log_path"`
}

// process is a running process: one of ours, or one that was found again.
type process interface {
	Pid() int
	Done() <-chan struct{}
	Err() error
	Signal(sig syscall.Signal) error // to its group
	Kill()
	Stop(grace time.Duration)
}

var (
	_ process = (*services.Process)(nil)
	_ process = (*adopted)(nil)
)

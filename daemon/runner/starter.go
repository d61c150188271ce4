package runner

import "context"

// Starter starts attempts, each under a shim that outlives the daemon. Besides
// ProcessStarter there is that of package systemd.
type Starter interface {
	// Name returns the starter's name in configuration: "process" or "systemd".
	Name() string
	// Start runs the attempt's shim and waits until the command was started
	// (nil; a command that could not be executed counts, and has an exit
	// record), or the shim declined (ErrRefused: it never will run). After any
	// other error, that of ctx too, it is unknown whether the command runs:
	// Revoke tells.
	Start(ctx context.Context, a *Attempt) error
	// Kill ends what is left of an attempt whose shim is gone, and returns nil
	// when nothing is. Attempt.RecordLost does it by itself for what the kernel
	// shows of the attempt; a starter may know more.
	Kill(ctx context.Context, a *Attempt) error
	// Close frees what the starter holds. Attempts run on.
	Close() error
}

package device

import "context"

// Source tells of a host's devices.
type Source interface {
	// Run delivers reports, one at a time and the first one soon, until ctx ends;
	// then it returns nil. An error means that it has given up.
	Run(ctx context.Context, deliver func(Report)) error
}

package device

import "context"

// Source tells of a host's devices.
type Source interface {
	// Run delivers reports, one at a time and the first one soon, until ctx ends;
	// then it returns nil. An error means that it has given up.
	Run(ctx context.Context, deliver func(Report)) error
}

// Looker is a Source that can be asked to look at its devices at once.
type Looker interface {
	// Look asks for an inventory that was sampled after this call: one whose Look
	// is n or higher. Of calls that race the highest n counts, in whatever order
	// they come. It never blocks and may be called before Run, and from any
	// goroutine. Where the source hangs, nothing comes.
	Look(n uint64)
}

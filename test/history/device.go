package history

import "slices"

// user is an execution with its job.
type user struct {
	*trace
	execution
}

// usersOf returns the executions that were given devices.
func (b *book) usersOf() []user {
	var all []user
	for _, t := range b.traces {
		for _, r := range t.runs {
			if len(r.began.Devices) > 0 {
				all = append(all, user{t, r})
			}
		}
	}
	return all
}

// deviceShared: from its payload's first instruction to its end a device has that
// payload alone, or several that have a part of it each, together no more than
// there is.
func (b *book) deviceShared() {
	all := b.usersOf()
	for _, r := range all {
		for _, device := range r.began.Devices {
			b.sharedAt(r, device, all)
		}
	}
}

// sharedAt looks at a device when one of its users begins.
func (b *book) sharedAt(r user, device string, all []user) {
	sum, events := r.began.Share, []*Event{r.began.Event}
	for _, o := range all {
		if o.began.Host != r.began.Host || o.began.pos >= r.began.pos || !slices.Contains(o.began.Devices, device) || apart(o.execution, r.execution) {
			continue
		}
		if r.began.Share == 0 || o.began.Share == 0 {
			b.report(DeviceShared, r.trace, r.began.Host, []*Event{o.began.Event, r.began.Event, o.finished.Event, r.finished.Event},
				"device %s had attempt %d of job %s and attempt %d of job %s at one time",
				device, o.began.Attempt, o.id, r.began.Attempt, r.id)
			continue
		}
		sum += o.began.Share
		events = append(events, o.began.Event)
	}
	if all := b.rules.DeviceBytes[r.began.Host]; r.began.Share > 0 && sum > all {
		b.report(DeviceShared, r.trace, r.began.Host, events, "device %s of %d bytes had parts of %d bytes given away when attempt %d began",
			device, all, sum, r.began.Attempt)
	}
}

// misplaced: a payload begins on a host whose devices its job can use.
func (b *book) misplaced(t *trace) {
	hosts, asks := b.rules.Serve[t.id]
	if !asks {
		return
	}
	for _, r := range t.runs {
		if !slices.Contains(hosts, r.began.Host) {
			b.report(Misplaced, t, r.began.Host, []*Event{r.began.Event}, "attempt %d began on a host whose devices do not meet what it asks for", r.began.Attempt)
		}
	}
}

// common returns a device that two facts name on one host.
func common(a, b fact) string {
	if a.Host != b.Host {
		return ""
	}
	for _, d := range a.Devices {
		if slices.Contains(b.Devices, d) {
			return d
		}
	}
	return ""
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// The pause between two looks at what is drained.
const (
	drainPauseMin = 100 * time.Millisecond
	drainPauseMax = 2 * time.Second
)

// occupants finds the jobs that run on a host, or on one device of it, by the
// ledger: what a host reports of its devices is as old as its last renewal.
type occupants struct {
	client *control.Client
	target
	devices map[string][]string // of each attempt seen
}

func newOccupants(client *control.Client, where target) *occupants {
	return &occupants{client: client, target: where, devices: map[string][]string{}}
}

// rows returns the claimed and running jobs there.
func (o *occupants) rows(ctx context.Context) ([]control.JobRow, error) {
	reply, err := o.client.List(ctx, control.ListArgs{States: []job.State{job.Claimed, job.Running}, Limit: control.RowsMax})
	if err != nil {
		return nil, err
	}
	var found []control.JobRow
	for _, row := range reply.Jobs {
		if row.Host != o.host {
			continue
		}
		there, err := o.onDevice(ctx, row)
		if err != nil {
			return nil, err
		}
		if there {
			found = append(found, row)
		}
	}
	return found, nil
}

func (o *occupants) onDevice(ctx context.Context, row control.JobRow) (bool, error) {
	if o.device == "" {
		return true, nil
	}
	attempt := fmt.Sprintf("%s.%d", row.ID, row.Attempt)
	if _, seen := o.devices[attempt]; !seen {
		j, err := o.client.Show(ctx, row.ID)
		if err != nil {
			return false, err
		}
		if j.Owner == nil || j.Attempt != row.Attempt {
			return false, nil // it has ended meanwhile; the next look shows what follows
		}
		o.devices[attempt] = j.Owner.Devices
	}
	return slices.Contains(o.devices[attempt], o.device), nil
}

// drainWait waits until nothing runs on what is drained.
type drainWait struct {
	*app
	client *control.Client
	target
	told    string // what was said last
	inForce bool   // the drain has been seen
}

// waitOn waits for a drain that somebody has begun.
func (w *drainWait) waitOn(ctx context.Context) error {
	d, found, err := w.look(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("drain: %w", err)
	case !found && w.device != "":
		return control.Errorf(control.CodeNotFound, "gpuqctl devices --host "+w.host+" lists them", "host %s has no device %s, or several", w.host, w.device)
	case !found:
		return control.Errorf(control.CodeNotFound, "gpuqctl hosts lists them", "there is no host %s", w.host)
	case d == nil:
		return usagef(`%s is not drained, so there is nothing to wait for: add --reason "..." to drain it`, w)
	}
	return w.wait(ctx)
}

// look returns the drain in force, nil where there is none, and gives the target
// its device's UUID. found is false where the daemon knows no such host or device.
func (w *drainWait) look(ctx context.Context) (d *control.Drain, found bool, err error) {
	if w.device == "" {
		reply, err := w.client.Hosts(ctx)
		i := slices.IndexFunc(reply.Hosts, func(h control.HostRow) bool { return h.Name == w.host })
		if err != nil || i < 0 {
			return nil, false, err
		}
		return reply.Hosts[i].Drained, true, nil
	}
	reply, err := w.client.Devices(ctx, control.DevicesArgs{Host: w.host})
	if err != nil {
		return nil, false, err
	}
	named := slices.DeleteFunc(reply.Devices, func(d control.DeviceRow) bool {
		return !strings.HasPrefix(d.UUID, w.device) && strconv.Itoa(d.Index) != w.device
	})
	if len(named) != 1 {
		return nil, false, nil
	}
	w.device = named[0].UUID
	return named[0].Drained, true, nil
}

// wait returns when nothing runs there any more.
func (w *drainWait) wait(ctx context.Context) error {
	there := newOccupants(w.client, w.target)
	for pause := drainPauseMin; ; pause = min(2*pause, drainPauseMax) {
		rows, drain, err := w.step(ctx, there)
		switch {
		case ctx.Err() != nil:
			return w.interrupted(ctx)
		case errors.Is(err, control.ErrUnavailable):
			w.tell("%v; the drain stays, and the wait goes on", err)
		case err != nil:
			return fmt.Errorf("drain: %w", err)
		case len(rows) == 0:
			w.say("nothing runs on %s any more", w)
			return nil
		case w.inForce && drain == nil:
			return fmt.Errorf("drain: %w", control.Errorf(control.CodeConflict, "gpuqctl events --target "+w.String()+" says who did it",
				"%s was resumed while %s still ran there", w, jobsText(rows)))
		default:
			w.inForce = drain != nil
			w.tell("%s left on %s", jobsText(rows), w)
		}
		sleep(ctx, pause)
	}
}

func (w *drainWait) step(ctx context.Context, there *occupants) ([]control.JobRow, *control.Drain, error) {
	drain, found, err := w.look(ctx) // first: what starts after it was not kept off by the drain
	if err != nil {
		return nil, nil, err
	}
	if !found { // a device that is lost stays drained
		w.inForce = false
	}
	rows, err := there.rows(ctx)
	return rows, drain, err
}

// tell says what has changed.
func (w *drainWait) tell(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != w.told {
		w.told = text
		w.say("%s", text)
	}
}

func (w *drainWait) interrupted(ctx context.Context) error {
	return &exitError{code: exitInterrupted, err: fmt.Errorf(
		"%w: %s stays drained: gpuqctl drain %s --wait waits on, gpuqctl resume %s ends the drain", context.Cause(ctx), w, w, w)}
}

func jobsText(rows []control.JobRow) string {
	ids := make([]job.ID, 0, len(rows))
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	if len(ids) == 1 {
		return "one attempt (" + shortIDs(ids) + ")"
	}
	return fmt.Sprintf("%d attempts (%s)", len(ids), shortIDs(ids))
}

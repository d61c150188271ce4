package ledger

import (
	"context"
	"errors"
	"fmt"

	"gpuqd/daemon/job"
)

// Host is the ledger's document of one host. Its session carries the lease.
type Host struct {
	Name      string       `json:"id"`
	InstallID string       `json:"install_id"` // made once per state directory
	MachineID string       `json:"machine_id"` // /etc/machine-id
	BootID    string       `json:"boot_id"`
	Session   Session      `json:"session"`
	Pools     []string     `json:"pools"`
	Devices   []HostDevice `json:"devices"` // as of the last renewal
	Version   string       `json:"version"`

	// What operators have drained, and resumed while the host could not be told. Only
	// SetDrain and AskResume write these.
	Drain        *Drain        `json:"drain,omitempty"`
	DeviceDrains []DeviceDrain `json:"device_drains,omitempty"`
	Resumes      []Resume      `json:"resumes,omitempty"`
	DrainSeq     int64         `json:"drain_seq,omitempty"` // grows with every change of the three
}

// SessionState says whether a session's lease can be renewed.
type SessionState string

// The states of a session. Only live ones hold jobs; none is ever revived.
const (
	Live    SessionState = "live"
	Expired SessionState = "expired" // marked by another host, or declared by an operator
	Closed  SessionState = "closed"  // ended by its own host
)

// Session is a stretch of one boot of one host as the ledger sees it.
type Session struct {
	ID        string       `json:"id"`
	State     SessionState `json:"state"`
	RenewSeq  int64        `json:"renew_seq"` // grows with every renewal, from 1
	TTL       job.Duration `json:"ttl"`
	OpenedAt  job.Time     `json:"opened_at"`
	RenewedAt job.Time     `json:"renewed_at"` // the host's own clock: for people, never for decisions
	EndedBy   string       `json:"ended_by"`
}

// HostDevice is one device as its host last reported it.
type HostDevice struct {
	UUID        string `json:"uuid"`
	Index       int    `json:"index"` // for display
	Model       string `json:"model"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Simulated   bool   `json:"simulated"`
	State       string `json:"state"`
	Reason      string `json:"reason"`
	JobID       job.ID `json:"job_id"`
	Attempt     int    `json:"attempt"`

	Since             job.Time       `json:"since,omitzero"`    // when it came into its state
	Holders           []DeviceHolder `json:"holders,omitempty"` // all of them
	ComputeCapability string         `json:"compute_capability,omitempty"`
	ParentUUID        string         `json:"parent_uuid,omitempty"` // of a MIG instance
	MIGProfile        string         `json:"mig_profile,omitempty"`
	SharedBytes       uint64         `json:"shared_bytes,omitempty"` // granted in parts; 0 where it is free or held as a whole

	// Figures for people, as of the renewal; nil where nobody tells.
	MemoryUsedBytes    uint64   `json:"memory_used_bytes,omitempty"`
	UtilisationPercent *int     `json:"utilisation_percent,omitempty"`
	TemperatureCelsius *int     `json:"temperature_celsius,omitempty"`
	PowerWatts         *float64 `json:"power_watts,omitempty"`
	ECCUncorrected     *uint64  `json:"ecc_uncorrected,omitempty"` // since the driver was loaded
}

// DeviceHolder is an attempt that holds a device.
type DeviceHolder struct {
	JobID       job.ID `json:"job_id"`
	Attempt     int    `json:"attempt"`
	MemoryBytes uint64 `json:"memory_bytes,omitempty"` // its share; 0 is the whole device
}

// Errors of sessions.
var (
	// ErrSessionLost: the session is no longer live; it will never be again.
	ErrSessionLost = errors.New("the session is no longer live")
	// ErrForeign: another installation holds a live session under this name.
	ErrForeign = errors.New("another installation holds this host name")
	// ErrRebooted: the host's session is of an earlier boot; settle its jobs,
	// then replace it.
	ErrRebooted = errors.New("the session is of an earlier boot")
)

// Host returns a host by a linearizable read. ErrNotFound if there is none.
func (l *Ledger) Host(ctx context.Context, name string) (*Host, error) {
	doc, err := l.store.Get(ctx, Hosts, name)
	if err != nil {
		return nil, fmt.Errorf("read host %s: %w", name, err)
	}
	return decode[Host](doc)
}

// HostList returns every host by name.
func (l *Ledger) HostList(ctx context.Context) ([]*Host, error) {
	docs, err := l.store.Find(ctx, Hosts, Query{Sort: "id"})
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	return decodeAll[Host](docs)
}

// OpenSession makes want.Session the host's session, or returns the live one
// that this installation opened earlier in the same boot, to be carried on. A
// host that is new is added. It returns ErrForeign, ErrRebooted (unless replace
// is set), or ErrSessionLost where the session just changed under the call; the
// host as it stands comes with each of them.
func (l *Ledger) OpenSession(ctx context.Context, want *Host, replace bool) (*Host, error) {
	current, err := l.Host(ctx, want.Name)
	if errors.Is(err, ErrNotFound) {
		if err := l.store.Insert(ctx, Hosts, want.Name, mustJSON(want)); err == nil {
			return want, nil
		}
		current, err = l.Host(ctx, want.Name) // somebody was first, or the outcome is unknown
	}
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	if current.Session.ID == want.Session.ID {
		if current.Session.State == Live {
			return current, nil // an earlier call opened it
		}
		return current, ErrSessionLost // and it is over already
	}
	if current.Session.State == Live {
		switch {
		case current.InstallID != want.InstallID || current.MachineID != want.MachineID:
			return current, ErrForeign
		case current.BootID == want.BootID:
			return current, nil
		case !replace:
			return current, ErrRebooted
		}
	}
	return l.replaceSession(ctx, current, want)
}

func (l *Ledger) replaceSession(ctx context.Context, current, want *Host) (*Host, error) {
	doc, err := l.store.Update(ctx, Hosts, want.Name,
		[]Cond{{"session.id", Eq, current.Session.ID}, {"session.renew_seq", Eq, current.Session.RenewSeq}},
		Update{Set: map[string]any{
			"install_id": want.InstallID, "machine_id": want.MachineID, "boot_id": want.BootID,
			"session": want.Session, "pools": want.Pools, "devices": want.Devices, "version": want.Version,
		}})
	if err == nil {
		return decode[Host](doc)
	}
	now, readErr := l.Host(ctx, want.Name)
	switch {
	case readErr != nil:
		return nil, fmt.Errorf("open a session: %w", errors.Join(err, readErr))
	case now.Session.ID == want.Session.ID && now.Session.State == Live:
		return now, nil
	case errors.Is(err, ErrNoMatch):
		return now, ErrSessionLost
	}
	return nil, fmt.Errorf("open a session: %w", err)
}

// Renewal is what a host writes with each renewal of its lease.
type Renewal struct {
	Host    string
	Session string
	Seq     int64 // RenewSeq as the host knows it; becomes Seq+1
	Now     job.Time
	TTL     job.Duration // from this renewal on
	Pools   []string
	Devices []HostDevice
	Version string
}

// Renew extends the lease of a live session. It returns ErrSessionLost when the
// session is over. A repetition after an unknown outcome is recognised.
func (l *Ledger) Renew(ctx context.Context, r Renewal) (*Host, error) {
	doc, err := l.store.Update(ctx, Hosts, r.Host,
		[]Cond{
			{"session.id", Eq, r.Session},
			{"session.renew_seq", Eq, r.Seq},
			{"session.state", Eq, string(Live)},
		},
		Update{Set: map[string]any{
			"session.renew_seq": r.Seq + 1, "session.renewed_at": r.Now, "session.ttl": r.TTL,
			"pools": r.Pools, "devices": r.Devices, "version": r.Version,
		}})
	if err == nil {
		return decode[Host](doc)
	}
	now, readErr := l.Host(ctx, r.Host)
	switch {
	case errors.Is(readErr, ErrNotFound):
		return nil, fmt.Errorf("renew session %s: the host is gone from the ledger: %w", r.Session, ErrSessionLost)
	case readErr != nil:
		return nil, fmt.Errorf("renew session %s: %w", r.Session, errors.Join(err, readErr))
	case now.Session.ID != r.Session || now.Session.State != Live:
		return now, fmt.Errorf("renew session %s: %w", r.Session, ErrSessionLost)
	case now.Session.RenewSeq == r.Seq+1:
		return now, nil // only its own host renews a session: an earlier call did it
	case now.Session.RenewSeq < r.Seq:
		return nil, fmt.Errorf("renew session %s: the ledger has gone back from renewal %d to %d; where a backup was put in its place, stop gpuqd on every host and run gpuqd --ledger-restored: %w",
			r.Session, r.Seq, now.Session.RenewSeq, err)
	}
	return nil, fmt.Errorf("renew session %s: %w", r.Session, err)
}

// EndSession marks a live session expired or closed, unless it was renewed
// since renewSeq was read. It only marks: takeover is a step of its own.
// ErrNoMatch when it is renewed, replaced or over.
func (l *Ledger) EndSession(ctx context.Context, host, session string, renewSeq int64, to SessionState, by string) error {
	_, err := l.store.Update(ctx, Hosts, host,
		[]Cond{
			{"session.id", Eq, session},
			{"session.renew_seq", Eq, renewSeq},
			{"session.state", Eq, string(Live)},
		},
		Update{Set: map[string]any{"session.state": to, "session.ended_by": by}})
	if err != nil {
		return fmt.Errorf("end session %s of %s: %w", session, host, err)
	}
	return nil
}

// CloseSession ends a host's own session, under which it runs nothing any more.
// A repetition after an unknown outcome is recognised, as is a renewal of its own
// whose outcome it did not learn. One that is over already is no error.
func (l *Ledger) CloseSession(ctx context.Context, host, session string, renewSeq int64) error {
	err := l.EndSession(ctx, host, session, renewSeq, Closed, host)
	if err == nil {
		return nil
	}
	now, readErr := l.Host(ctx, host)
	switch {
	case errors.Is(readErr, ErrNotFound):
		return nil
	case readErr != nil:
		return fmt.Errorf("close session %s: %w", session, errors.Join(err, readErr))
	case now.Session.ID != session || now.Session.State != Live:
		return nil
	case now.Session.RenewSeq == renewSeq:
		return err // it did not take effect
	}
	return l.EndSession(ctx, host, session, now.Session.RenewSeq, Closed, host)
}

// LiveSessions returns the IDs of all live sessions. A job is taken over only
// if it was read before this list: its session is then known to be over, not
// yet to come.
func LiveSessions(hosts []*Host) map[string]bool {
	live := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		if h.Session.State == Live {
			live[h.Session.ID] = true
		}
	}
	return live
}

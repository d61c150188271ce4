package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// letter records a dead letter, which the case deletes. An ID is the beginning
// that is given, filled up to the length of a real one.
func (p *protocol) letter(t *testing.T, begins string, at job.Time) string {
	t.Helper()
	const digits = 64
	id := begins
	for len(id) < digits {
		id += "7"
	}
	d := ledger.DeadLetter{ID: id, At: at, Reason: "no JSON", Queue: "gpuq.submit", User: "alice", Body: []byte("?"), BodyBytes: 1, Host: "a"}
	if err := p.of(0).RecordDeadLetter(p.ctx, d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.of(0).ForgetDeadLetter(p.ctx, id); err != nil {
			t.Error(err)
		}
	})
	return id
}

func (p *protocol) deadLetterClaims(t *testing.T) {
	t.Run("IsFoundByItsUniqueBeginning", func(t *testing.T) {
		one := p.letter(t, "aaaa1111", protocolNow)
		two := p.letter(t, "aaaa1112ff", protocolNow)
		three := p.letter(t, "ffffffff", protocolNow)
		for _, c := range []struct {
			prefix, want string
			err          error
		}{
			{one, one, nil},
			{two[:63], two, nil},
			{"aaaa1111", one, nil},
			{"aaaa1112", two, nil},
			{"f", three, nil},
			{"aaaa111", "", ledger.ErrConflict},
			{"aaaa1113", "", ledger.ErrNotFound},
			{"aaaa11110", "", ledger.ErrNotFound},
			{one[:63] + "0", "", ledger.ErrNotFound},
			{one + "0", "", ledger.ErrNotFound},
			{"", "", ledger.ErrNotFound},
			{"AAAA1111", "", ledger.ErrNotFound},
			{"aaaa1111%", "", ledger.ErrNotFound},
		} {
			d, err := p.of(1).DeadLetter(p.ctx, c.prefix)
			if !errors.Is(err, c.err) || c.err == nil && (d.ID != c.want || string(d.Body) != "?") {
				t.Errorf("%q: %v, %v; want %s, %v", c.prefix, d, err, c.want, c.err)
			}
		}
	})
	t.Run("IsForgottenOnceAndForAll", func(t *testing.T) {
		id := p.letter(t, "bbbb", protocolNow)
		for range 2 {
			wantError(t, p.of(0).ForgetDeadLetter(p.ctx, id), nil)
		}
		_, err := p.of(1).DeadLetter(p.ctx, id)
		wantError(t, err, ledger.ErrNotFound)
	})
	t.Run("OlderOnesAreForgottenTogether", func(t *testing.T) {
		const old = 205 // more than one batch
		for i := range old {
			p.letter(t, fmt.Sprintf("cccc%04d", i), later(-time.Duration(i+1)*time.Second))
		}
		young := p.letter(t, "dddd", protocolNow)
		if n, err := p.of(1).ForgetDeadLettersBefore(p.ctx, job.Time{}); err != nil || n != 0 {
			t.Fatalf("before no time: %d, %v", n, err)
		}
		n, err := p.of(1).ForgetDeadLettersBefore(p.ctx, protocolNow)
		if err != nil || n != old {
			t.Fatalf("%d, %v; want %d", n, err, old)
		}
		if _, err := p.of(0).DeadLetter(p.ctx, young); err != nil {
			t.Errorf("the young one: %v", err)
		}
		if n, err := p.of(1).ForgetDeadLettersBefore(p.ctx, protocolNow); err != nil || n != 0 {
			t.Fatalf("once more: %d, %v", n, err)
		}
	})
}

func (p *protocol) eventClaims(t *testing.T) {
	host := "host-" + uuid.NewString()
	device := host + "/GPU-1"
	for i, target := range []string{host, device, host, host} {
		e := ledger.Event{At: later(time.Duration(i) * time.Minute), Host: "a", Who: "bob", What: "drain", Target: target, Why: fmt.Sprint(i)}
		if err := p.of(0).RecordEvent(p.ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		filter ledger.EventFilter
		want   []string
	}{
		{"OfATargetNewestFirst", ledger.EventFilter{Target: host}, []string{"3", "2", "0"}},
		{"OfADevice", ledger.EventFilter{Target: device}, []string{"1"}},
		{"SinceATimeAndAtIt", ledger.EventFilter{Target: host, Since: later(2 * time.Minute)}, []string{"3", "2"}},
		{"AsManyAsTheLimit", ledger.EventFilter{Target: host, Limit: 2}, []string{"3", "2"}},
		{"OfAllTargets", ledger.EventFilter{Limit: 3}, []string{"3", "2", "1"}},
		{"OfNobody", ledger.EventFilter{Target: host + "0"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, err := p.of(1).EventList(p.ctx, c.filter)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range events {
				got = append(got, e.Why)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

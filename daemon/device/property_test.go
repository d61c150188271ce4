package device

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"gpuqd/daemon/job"
)

// attempt names the holder of a device; the zero value is nobody.
type attempt = attemptKey

// model is what a Manager must agree with: plain facts per device and no rules
// for keeping them in step.
type model struct {
	holder      map[string]attempt
	sick        map[string]bool
	cordons     map[string]bool
	named       map[string]bool // by any report so far
	quarantined map[string]bool
	foreign     map[string]bool // a process of nobody's was on it, when nobody held it
	unchecked   map[string]bool // its last holder has left it, and no look has found it clean
}

func newModel() model {
	return model{
		map[string]attempt{},
		map[string]bool{},
		map[string]bool{},
		map[string]bool{},
		map[string]bool{},
		map[string]bool{},
		map[string]bool{},
	}
}

func (m model) state(uuid string) State {
	_, held := m.holder[uuid]
	switch {
	case m.sick[uuid] || !m.named[uuid] || m.quarantined[uuid] || m.foreign[uuid]:
		return Sick
	case held && m.cordons[uuid]:
		return Draining
	case m.cordons[uuid]:
		return Cordoned
	case held:
		return Busy
	case m.unchecked[uuid]:
		return Checking
	}
	return Free
}

func (m model) known(uuid string) bool {
	_, held := m.holder[uuid]
	return held || m.named[uuid]
}

// TestManagerAgreesWithModel defends: a device is held by at most one attempt,
// grants are all or nothing, what is shown is what is so, and a device with a fault,
// a process that nobody may have there, or an unfinished check is never granted.
func TestManagerAgreesWithModel(t *testing.T) {
	uuids := []string{"a", "b", "c", "d"}
	jobs := []job.ID{job.NewID(), job.NewID(), job.NewID()}
	rapid.Check(t, func(t *rapid.T) {
		m, want := New("host-1", &Simulated{}, nil), newModel() // a source that does not run answers no look
		m.processes = fakeProcesses{66: {PID: 66, Name: "python3", User: "eve"}}
		some := rapid.SliceOfDistinct(rapid.SampledFrom(uuids), func(s string) string { return s })
		by := rapid.Custom(func(t *rapid.T) attempt {
			return attempt{rapid.SampledFrom(jobs).Draw(t, "job"), rapid.IntRange(1, 2).Draw(t, "attempt")}
		})
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				who, what := by.Draw(t, "by"), some.Draw(t, "what")
				ok := !slices.ContainsFunc(what, func(u string) bool { return !want.known(u) || want.state(u) != Free })
				if err := m.Acquire(who.id, who.number, what, 0); (err == nil) != ok {
					t.Fatalf("acquire %v: %v, want success %v", what, err, ok)
				}
				want.hold(who, what, ok)
			},
			"adopt": func(t *rapid.T) {
				who, what := by.Draw(t, "by"), some.Draw(t, "what")
				ok := !slices.ContainsFunc(what, func(u string) bool {
					h, held := want.holder[u]
					return held && h != who
				})
				if err := m.Adopt(who.id, who.number, what, 0); (err == nil) != ok {
					t.Fatalf("adopt %v: %v, want success %v", what, err, ok)
				}
				want.hold(who, what, ok)
			},
			"release": func(t *rapid.T) {
				who := by.Draw(t, "by")
				m.Release(who.id, who.number)
				want.release(who)
			},
			"cordon": func(t *rapid.T) {
				uuid, on := rapid.SampledFrom(uuids).Draw(t, "uuid"), rapid.Bool().Draw(t, "on")
				var err error
				if on {
					err = m.Cordon(uuid, "because", "ada")
				} else {
					err = m.Uncordon(uuid)
				}
				if (err == nil) != want.known(uuid) {
					t.Fatalf("cordon %s: %v", uuid, err)
				}
				if err == nil {
					want.cordons[uuid] = on
				}
			},
			"report": func(t *rapid.T) {
				named, sick, foreign := some.Draw(t, "named"), some.Draw(t, "sick"), some.Draw(t, "foreign")
				r := inventory(named...)
				fresh := rapid.Bool().Draw(t, "fresh")
				if fresh {
					r.Look = m.asked
				}
				for i := range r.Devices {
					if slices.Contains(sick, r.Devices[i].UUID) {
						r.Devices[i].Sick = "ecc"
					}
					if slices.Contains(foreign, r.Devices[i].UUID) {
						r.Devices[i].Processes = []Process{{PID: 66, MemoryUsedBytes: 1 << 30}}
					}
				}
				m.take(r)
				want.report(uuids, named, sick, foreign, fresh)
			},
			"xid": func(t *rapid.T) {
				code, uuid := rapid.SampledFrom([]int{13, 31, 63, 79, 48, 151, 9999}).Draw(t, "code"), rapid.SampledFrom(uuids).Draw(t, "uuid")
				m.take(Report{Events: []Event{{UUID: uuid, Kind: EventXID, XID: code, Count: 1}}})
				for _, u := range uuids {
					if class := LookUpXID(code).Class; want.known(u) &&
						(class == XIDHost || u == uuid && (class == XIDDevice || class == XIDUnknown)) {
						want.quarantined[u] = true
					}
				}
			},
			"resume": func(t *rapid.T) {
				uuid := rapid.SampledFrom(uuids).Draw(t, "uuid")
				if m.Resume(uuid, "ada") != want.quarantined[uuid] {
					t.Fatalf("resume of %s, quarantined %v", uuid, want.quarantined[uuid])
				}
				if _, held := want.holder[uuid]; want.quarantined[uuid] && !held && want.known(uuid) {
					want.unchecked[uuid], want.foreign[uuid] = true, false
				}
				delete(want.quarantined, uuid)
			},
			"error": func(t *rapid.T) {
				m.take(Report{Error: &ReportError{Kind: HelperSilent, Message: "silent"}})
				for _, u := range uuids {
					want.sick[u] = true
				}
			},
			"": func(t *rapid.T) { want.compare(t, m, uuids) },
		})
	})
}

// report takes in an inventory. Only a fresh one, sampled after the last look was
// asked for, can find a device clean that an attempt has left.
func (m model) report(uuids, named, sick, foreign []string, fresh bool) {
	for _, u := range uuids {
		here, clean := slices.Contains(named, u), !slices.Contains(foreign, u)
		m.named[u] = m.named[u] || here
		m.sick[u] = slices.Contains(sick, u) || !here
		if _, held := m.holder[u]; held || !here || slices.Contains(sick, u) {
			continue // nobody looks at what cannot be told of
		}
		if m.unchecked[u] && !fresh {
			continue
		}
		m.foreign[u] = !clean
		m.unchecked[u] = m.unchecked[u] && !clean
	}
}

func (m model) hold(who attempt, what []string, ok bool) {
	for _, u := range what {
		if ok {
			m.holder[u] = who
			m.foreign[u] = false // until then it was not known whose it is
		}
	}
}

func (m model) release(who attempt) {
	maps.DeleteFunc(m.holder, func(u string, h attempt) bool {
		if h == who && !m.named[u] {
			delete(m.cordons, u) // forgotten with the device; a quarantine is not
		}
		if h == who && m.named[u] {
			m.unchecked[u] = true
		}
		return h == who
	})
}

func (m model) compare(t *rapid.T, got *Manager, uuids []string) {
	shown := map[string]Status{}
	for _, s := range got.Snapshot() {
		shown[s.UUID] = s
	}
	free := 0
	for _, u := range uuids {
		s, ok := shown[u]
		if ok != m.known(u) {
			t.Fatalf("%s is shown: %v, want %v", u, ok, m.known(u))
		}
		if !ok {
			continue
		}
		if h := (attempt{s.JobID, s.Attempt}); h != m.holder[u] || s.State != m.state(u) {
			t.Fatalf("%s is %s held by %v, want %s by %v", u, s.State, h, m.state(u), m.holder[u])
		}
		if s.State == Free {
			free++
		}
	}
	if len(got.Free()) != free {
		t.Fatalf("Free lists %v, want %d", got.Free(), free)
	}
}

// TestRacingAttemptsNeverShareADevice has attempts grab pairs of devices while
// reports and cordons come in; each writes its name on what it was granted.
func TestRacingAttemptsNeverShareADevice(t *testing.T) {
	uuids := []string{"a", "b", "c", "d"}
	m := newManager(uuids...)
	names := make([]atomic.Int64, len(uuids))
	var granted atomic.Int64
	var wg sync.WaitGroup
	for worker := 1; worker <= 8; worker++ {
		wg.Go(func() {
			id := job.NewID()
			for round := range 300 {
				i, j := (worker+round)%4, (worker*3+round*2+1)%4
				if i == j || m.Acquire(id, round+1, []string{uuids[i], uuids[j]}, 0) != nil {
					continue
				}
				granted.Add(1)
				for _, d := range []int{i, j} {
					if !names[d].CompareAndSwap(0, int64(worker)) {
						t.Errorf("worker %d was granted %s, which worker %d holds", worker, uuids[d], names[d].Load())
					}
				}
				names[i].Store(0)
				names[j].Store(0)
				m.Release(id, round+1)
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			source := m.source.(*obliging)
			source.report("a", "b", "c")
			_ = m.Cordon("a", "race", "ada")
			source.report(uuids...)
			_ = m.Uncordon("a")
			_ = m.Snapshot()
		}
	})
	wg.Wait()
	if granted.Load() == 0 {
		t.Fatal("nothing was granted, so nothing was tested")
	}
	if len(m.Free()) != len(uuids) {
		t.Errorf("%d devices are free in the end, want all", len(m.Free()))
	}
}

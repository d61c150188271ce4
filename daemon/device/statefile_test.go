package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.json")
	o := Options{StateFile: path, BootID: "boot-1", BreakerFast: 30 * time.Second}
	fresh := func(boot string) *bench {
		o.BootID = boot
		b := newBench(t, o, "a", "b")
		b.set("b", func(f *Facts) { f.ECC = &ECC{Uncorrected: 2} })
		return b
	}
	b := fresh("boot-1")
	b.grant("j", 1, "a")
	b.report(xid("a", 79))
	b.want("a", Sick)
	b.want("b", Sick, "2 since")
	b.Resume("b", "ada")
	b.report()
	b.want("b", Free)

	// A restart: the quarantine holds, the errors that were accepted stay so, and the
	// attempt that is found running knows what has happened.
	again := fresh("boot-1")
	again.report()
	again.want("a", Sick, "XID 79")
	again.want("b", Free)
	if err := again.Adopt("j", 1, []string{"a"}, 0); err != nil {
		t.Fatal(err)
	}
	if got := again.alarmed(); len(got) != 1 {
		t.Errorf("alarms %+v for an attempt that was found on a device in quarantine", got)
	}
	again.Release("j", 1)
	again.report()
	if f := again.Faults("j", 1); len(f.Device) != 1 || !strings.Contains(f.Device[0], "XID 79") {
		t.Errorf("faults after the restart: %+v", f)
	}
	again.Recall("j", 1, []string{"a"}) // or found ended
	again.Release("j", 1)
	if f := again.Faults("j", 1); len(f.Device) != 1 {
		t.Errorf("faults of an attempt found ended: %+v", f)
	}

	// Errors that came while no daemon looked are those of whoever ran there.
	gap := newBench(t, o)
	gap.facts["b"] = b.facts["b"]
	gap.set("b", func(f *Facts) { f.ECC = &ECC{Uncorrected: 5} })
	gap.report()
	gap.want("b", Sick, "5 since the driver was loaded, 2 before")
	if err := gap.Adopt("k", 1, []string{"b"}, 0); err != nil {
		t.Fatal(err)
	}
	if f := gap.Faults("k", 1); len(f.Device) != 1 {
		t.Errorf("faults of who ran meanwhile: %+v", f)
	}

	// A reboot ends it.
	rebooted := newBench(t, Options{StateFile: path, BootID: "boot-2"}, "a")
	rebooted.want("a", Free)
}

// The driver may tell nothing for a while after a restart. What is known of a device by
// the file alone is no less so: it outlives an attempt that was adopted on it, counts
// for one that was found ended, and a resume finds it.
func TestQuarantineOfADeviceThatNobodyHasSeenYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.json")
	o := Options{StateFile: path, BootID: "boot-1"}
	first := newBench(t, o, "a")
	first.grant("j", 1, "a")
	first.report(xid("a", 79))
	facts := first.facts["a"]
	blind := func() *bench {
		b := newBench(t, o) // no device yet
		b.take(Report{Error: &ReportError{Kind: HelperSilent, Message: "silent"}})
		return b
	}

	b := blind()
	b.Recall("j", 1, []string{"a"})
	b.Release("j", 1)
	if f := b.Faults("j", 1); len(f.Device) != 1 || !strings.Contains(f.Device[0], "XID 79") {
		t.Errorf("faults of an attempt found ended: %+v", f)
	}

	b = blind()
	if err := b.Adopt("j", 1, []string{"a"}, 0); err != nil {
		t.Fatal(err)
	}
	b.Release("j", 1)
	b.Release("j", 1)
	b.report(xid("x", 31)) // anything that may write the file
	b.facts["a"] = facts
	b.report()
	b.want("a", Sick, "XID 79")
	newBench(t, o, "a").want("a", Sick, "XID 79")

	b = blind()
	if !b.Resume("a", "ada") || b.Resume("a", "ada") {
		t.Error("want the resume to end what the file knows, once")
	}
	b.facts["a"] = facts
	b.report()
	b.want("a", Free)
	newBench(t, o, "a").want("a", Free)
}

func TestDamagedStateFileIsPutAside(t *testing.T) {
	for name, text := range map[string]string{"Torn": `{"version":1,"boot_id":"boot-1","dev`, "Newer": `{"version":99}`, "Empty": ""} {
		path := filepath.Join(t.TempDir(), "devices.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, Options{StateFile: path, BootID: "boot-1"}, "a")
		b.want("a", Free)
		if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != text {
			t.Errorf("%s: kept %q, %v", name, kept, err)
		}
		b.report(xid("a", 79))
		newBench(t, Options{StateFile: path, BootID: "boot-1"}, "a").want("a", Sick)
	}
}

// What cannot be written is written as soon as it can.
func TestStateFileIsWrittenAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	o := Options{StateFile: filepath.Join(dir, "devices.json"), BootID: "boot-1"}
	b := newBench(t, o, "a")
	b.report(xid("a", 79))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.report()
	newBench(t, o, "a").want("a", Sick)
}

func TestOrdersAreCarriedOutOnce(t *testing.T) {
	o := Options{StateFile: filepath.Join(t.TempDir(), "devices.json"), BootID: "boot-1"}
	old := []Order{{Seq: 3, UUID: "a", Who: "ada"}}
	b := newBench(t, o, "a")
	b.report(xid("a", 79))
	b.TakeOrders(old) // from before there was a file: about an earlier quarantine
	b.want("a", Sick)
	b.TakeOrders([]Order{{Seq: 5, UUID: "a", Who: "ada"}})
	b.want("a", Checking)
	b.report(xid("a", 79))
	b.TakeOrders([]Order{{Seq: 5, UUID: "a", Who: "ada"}})
	b.want("a", Sick)

	again := newBench(t, o, "a")
	again.TakeOrders([]Order{{Seq: 5, UUID: "a", Who: "ada"}})
	again.want("a", Sick)
	again.TakeOrders([]Order{{Seq: 7, UUID: "a", Who: "ada"}})
	again.want("a", Checking)
}

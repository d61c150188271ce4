package health

import (
	"testing"
	"time"
)

func TestFigureReadsWell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 420 * time.Microsecond: "0.42 ms", 3140 * time.Microsecond: "3.1 ms", 13 * time.Millisecond: "13 ms",
		2500 * time.Millisecond: "2.5 s", -5 * time.Second: "-5.0 s", 30 * time.Minute: "30m0s", 720 * time.Hour: "720h0m0s",
	} {
		if got := Figure(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

func TestSpread(t *testing.T) {
	if median, most := Spread(nil); median != 0 || most != 0 {
		t.Errorf("of none: %s, %s", median, most)
	}
	if median, most := Spread([]time.Duration{9, 1, 5}); median != 5 || most != 9 {
		t.Errorf("got %d, %d", median, most)
	}
}

func TestNamesCountsTheRest(t *testing.T) {
	if got := Names([]string{"a", "b"}); got != "a, b" {
		t.Error(got)
	}
	if got := Names([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}); got != "a, b, c, d, e, f, g, h and 2 more" {
		t.Error(got)
	}
}

func TestRoomLeavesTimeToAct(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		disk Disk
		want State
	}{
		"Ample":              {Disk{FreeBytes: 500 * gib, TotalBytes: 1000 * gib, FreeInodes: 1e6, TotalInodes: 1e7}, OK},
		"SmallDiskHalfFree":  {Disk{FreeBytes: 4 * gib, TotalBytes: 8 * gib}, OK},
		"LittleOfALargeDisk": {Disk{FreeBytes: 4 * gib, TotalBytes: 1000 * gib}, Warn},
		"AlmostNothing":      {Disk{FreeBytes: 50 << 20, TotalBytes: 1000 * gib}, Fail},
		"FewInodes":          {Disk{FreeBytes: 500 * gib, TotalBytes: 1000 * gib, FreeInodes: 5000, TotalInodes: 1e7}, Warn},
		"NoInodes":           {Disk{FreeBytes: 500 * gib, TotalBytes: 1000 * gib, FreeInodes: 3, TotalInodes: 1e7}, Fail},
		"InodesNotCounted":   {Disk{FreeBytes: 500 * gib, TotalBytes: 1000 * gib}, OK},
	} {
		if got := c.disk.Room("room", "make room"); got.State != c.want || (got.Advice == "") != (c.want == OK) {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}
}

func TestDiskOf(t *testing.T) {
	d, err := DiskOf(t.TempDir())
	if err != nil || d.TotalBytes == 0 || d.FreeBytes > d.TotalBytes || d.Kind == "" || d.DeviceNumber == 0 {
		t.Errorf("%+v, %v", d, err)
	}
	proc, err := DiskOf("/dev/shm")
	if err != nil || proc.Kind != "tmpfs" || !proc.Volatile || proc.Network {
		t.Errorf("/dev/shm: %+v, %v", proc, err)
	}
	if _, err := DiskOf("/no/such/path"); err == nil {
		t.Error("a path that is not there has a disk")
	}
}

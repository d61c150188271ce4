package services

import (
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
)

func TestFreePorts(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var (
		all  []int
		mu   sync.Mutex
		work sync.WaitGroup
	)
	for range 8 {
		work.Go(func() {
			for range 50 {
				ports, err := FreePorts(3)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, ports...)
				mu.Unlock()
			}
		})
	}
	work.Wait()
	slices.Sort(all)
	if unique := slices.Compact(slices.Clone(all)); len(unique) != 8*50*3 {
		t.Errorf("%d ports are %d different ones", len(all), len(unique))
	}
	if all[0] < firstPort || all[len(all)-1] >= afterPort {
		t.Errorf("ports from %d to %d", all[0], all[len(all)-1])
	}
}

func TestFreePortsSkipsTaken(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ports, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	next := ports[0] + 1
	if next == afterPort {
		next = firstPort
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(next)))
	if err != nil {
		t.Skipf("port %d was taken by another program: %v", next, err)
	}
	defer l.Close()
	if ports, err = FreePorts(1); err != nil || ports[0] == next {
		t.Errorf("FreePorts = %v, %v though %d is taken", ports, err, next)
	}
}

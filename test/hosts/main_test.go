package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m, takeDown) }

// theSite is made once, by the first test that asks for it.
var theSite struct {
	sync.Once
	mu   sync.Mutex
	lab  *lab.Lab // guarded by mu
	dir  string   // of what was built; guarded by mu
	site *site
	err  error
}

func takeDown() error {
	theSite.mu.Lock()
	defer theSite.mu.Unlock()
	if theSite.lab == nil {
		return nil
	}
	defer func() { theSite.lab = nil }()
	return errors.Join(theSite.lab.Close(), os.RemoveAll(theSite.dir))
}

// setUpTimeout bounds the making of a site, base systems included, on two cores.
const setUpTimeout = 25 * time.Minute

// need returns the site, whole and with gpuqd running on gpu1..gpu3. The test is
// skipped where nobody has asked for hosts.
func need(t *testing.T) *site {
	t.Helper()
	if os.Getenv("GPUQ_HOSTS") == "" {
		t.Skip("skipped: it boots Debian hosts, which needs root and minutes; `make e2e` runs it")
	}
	theSite.Do(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
		defer cancel()
		theSite.site, theSite.err = setUp(ctx)
		t.Logf("the site took %.0f s", time.Since(began).Seconds())
	})
	if theSite.err != nil {
		t.Fatalf("there is no site: %v", theSite.err)
	}
	s := theSite.site
	t.Cleanup(func() {
		if t.Failed() {
			s.showLogs(t)
		}
		s.settle(t)
	})
	s.expectWhole(t, s.gpus...)
	return s
}

// setUp boots the hosts and makes the site on them.
func setUp(ctx context.Context) (*site, error) {
	l, names, err := openLab()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gpuq-hosts-")
	theSite.mu.Lock()
	theSite.lab, theSite.dir = l, dir
	theSite.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := l.Up(ctx, lab.Container, names[:4]...); err != nil {
		return nil, err
	}
	s := newSite(l, names)
	return s, s.install(ctx, dir)
}

// hostNames are those of the site's hosts where the lab is our own.
var hostNames = []string{"e2e-svc", "e2e-gpu1", "e2e-gpu2", "e2e-gpu3", "e2e-vm"}

// openLab returns a lab and the names of the five hosts.
func openLab() (*lab.Lab, []string, error) {
	dir := os.Getenv("GPUQ_LAB")
	if dir == "" {
		l, err := lab.New()
		return l, hostNames, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "hosts"))
	if err != nil {
		return nil, nil, fmt.Errorf("GPUQ_LAB: %w", err)
	}
	names := strings.Fields(string(bytes.TrimSpace(text)))
	if len(names) != len(hostNames) {
		return nil, nil, errors.New("GPUQ_LAB: its file hosts has to name five")
	}
	l, err := lab.Existing(filepath.Join(dir, "lab"), filepath.Join(dir, "ssh_config"), names...)
	return l, names, err
}

package control

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

func TestSocket(t *testing.T) {
	t.Run("IsOpenToEveryUser", func(t *testing.T) {
		s := serve(t, newRecorder(), nil)
		info, err := os.Lstat(s.opts.Socket)
		if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != socketMode {
			t.Errorf("got %v, %v", info.Mode(), err)
		}
	})
	t.Run("OfADeadDaemonIsReplaced", func(t *testing.T) {
		path := socketPath(t)
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false) // as SIGKILL leaves it
		_ = dead.Close()
		s := NewServer(newRecorder(), Options{Socket: path})
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		if _, err := clientOf(path).Hosts(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("OfALivingDaemonIsLeftAlone", func(t *testing.T) {
		living := serve(t, newRecorder(), nil)
		s := NewServer(newRecorder(), Options{Socket: living.opts.Socket})
		if err := s.Start(); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
			t.Errorf("got %v", err)
		}
		s.Stop()
		if _, err := clientOf(living.opts.Socket).Hosts(t.Context()); err != nil {
			t.Errorf("the living daemon lost its socket: %v", err)
		}
	})
	t.Run("IsNotPutInPlaceOfAFile", func(t *testing.T) {
		path := socketPath(t)
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := NewServer(newRecorder(), Options{Socket: path}).Start(); err == nil {
			t.Error("it started")
		}
		if data, _ := os.ReadFile(path); !bytes.Equal(data, []byte("precious")) {
			t.Errorf("the file now has %q", data)
		}
	})
	t.Run("OfADeadDaemonGoesToOneOfMany", func(t *testing.T) {
		path := socketPath(t)
		for range 20 {
			dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			dead.SetUnlinkOnClose(false)
			_ = dead.Close()
			var (
				wg      sync.WaitGroup
				servers [8]*Server
				errs    [8]error
			)
			for i := range servers {
				servers[i] = NewServer(newRecorder(), Options{Socket: path})
				wg.Go(func() { errs[i] = servers[i].Start() })
			}
			wg.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				}
			}
			if _, err := clientOf(path).Hosts(t.Context()); err != nil || won != 1 {
				t.Errorf("%d of %d started, and the socket gives %v", won, len(servers), err)
			}
			for _, s := range servers {
				s.Stop()
			}
		}
	})
	t.Run("WithoutItsDirectorySaysWhatToDo", func(t *testing.T) {
		err := NewServer(newRecorder(), Options{Socket: socketPath(t) + "/none/s"}).Start()
		if err == nil || !strings.Contains(err.Error(), "create it, or set control.socket") {
			t.Errorf("got %v", err)
		}
	})
}

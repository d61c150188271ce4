package systemd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"gpuqd/daemon/systembus"
)

// mute is what stands behind a connection to it: it greets, as systemd's own socket
// does, and then answers nothing.
func mute(t *testing.T) (dial func() (*dbus.Conn, error)) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "bus"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					switch word := strings.TrimPrefix(lines.Text(), "\x00"); {
					case strings.HasPrefix(word, "AUTH EXTERNAL"):
						_, _ = conn.Write([]byte("OK 00000000000000000000000000000000\r\n"))
					case strings.HasPrefix(word, "AUTH"):
						_, _ = conn.Write([]byte("REJECTED EXTERNAL\r\n"))
					case word == "NEGOTIATE_UNIX_FD":
						_, _ = conn.Write([]byte("AGREE_UNIX_FD\r\n"))
					case word == "BEGIN":
						_, _ = io.Copy(io.Discard, conn)
						return
					}
				}
			}()
		}
	}()
	return func() (*dbus.Conn, error) {
		conn, err := dbus.Dial("unix:path=" + listener.Addr().String())
		if err == nil {
			err = conn.Auth([]dbus.Auth{dbus.AuthExternal(fmt.Sprint(os.Geteuid()))})
		}
		return conn, err
	}
}

// A connection that gave no answer in time may lead to a bus that hangs for good.
// The next call must not find that out again; calls that still wait on it must not be
// cut off, for it may be systemd that is slow.
func TestConnectionWithoutAnswerIsNotUsedAgain(t *testing.T) {
	b := &bus{dial: mute(t), callWait: 20 * time.Millisecond}
	waiting, err := b.take() // another call, which has its answer still to come
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.call(t.Context(), systemdPath, "org.freedesktop.DBus.Peer.Ping", nil); !errors.Is(err, errSlow) {
		t.Fatalf("got %v, want errSlow", err)
	}
	next, err := b.take()
	if err != nil {
		t.Fatal(err)
	}
	if next == waiting {
		t.Error("the next call is made through the connection that does not answer")
	}
	if !waiting.Connected() {
		t.Error("the call that still waits was cut off")
	}
	b.give(waiting, nil)
	if waiting.Connected() {
		t.Error("the connection is left open when its last call is over")
	}
	b.give(next, nil)
	if !next.Connected() {
		t.Error("a connection that is well was closed")
	}
	if err := b.close(); err != nil || next.Connected() {
		t.Errorf("close: %v", err)
	}
}

// While systemd executes itself again its name has no owner, and every host has a
// file from which the bus would start one.
func TestSystemdOffTheBusCountsAsLost(t *testing.T) {
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("there is no dbus-daemon here: apt-get install dbus-daemon")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"systemd.service": "[D-BUS Service]\nName=org.freedesktop.systemd1\nExec=/bin/false\n",
		"bus.conf": `<busconfig><type>session</type><listen>unix:path=` + dir + `/bus</listen><servicedir>` + dir + `</servicedir>
			<policy context="default"><allow user="*"/><allow send_destination="*"/><allow receive_type="method_return"/><allow receive_type="error"/>
			<allow send_type="method_call"/><allow send_type="method_return"/><allow send_type="error"/></policy></busconfig>`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), daemon, "--nofork", "--nopidfile", "--config-file="+dir+"/bus.conf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it has no end of its own
		_ = cmd.Wait()
	}()
	var conn *dbus.Conn
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err = systembus.BusAt(t.Context(), "unix:path="+dir+"/bus"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer conn.Close()
	if err := newBus().callOnce(t.Context(), conn, systemdPath, "org.freedesktop.DBus.Peer.Ping", nil, nil); !isLost(err) {
		t.Errorf("got %v; it would fail the start of a job", err)
	}
}

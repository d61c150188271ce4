package systemd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A bus that hangs: its socket takes connections, and nobody says a word.
func TestSilentBusIsNotWaitedForWithoutEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := dbus.Dial("unix:path=" + path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := greet(conn, true, 20*time.Millisecond)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "no greeting") {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits still")
	}
	if conn.Connected() {
		t.Error("the connection was left open")
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
		if conn, err = dbus.Dial("unix:path=" + dir + "/bus"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if conn, err = greet(conn, true, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := callOnce(t.Context(), conn, systemdPath, "org.freedesktop.DBus.Peer.Ping", nil, nil); !isLost(err) {
		t.Errorf("got %v; it would fail the start of a job", err)
	}
}

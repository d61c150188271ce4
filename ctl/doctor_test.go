package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/control"
)

// someFindings are of every state, some of them seen by two hosts.
func someFindings() []control.Finding {
	return []control.Finding{
		{Part: "broker", Check: "node", Host: "gpu1", State: control.FindingOK, Saw: "10.0.0.1:5672: RabbitMQ 3.10.8 on Erlang/OTP 25.2.3, connected and logged in within 3.1 ms"},
		{Part: "broker", Check: "node", Host: "gpu1", State: control.FindingWarn, Saw: "10.0.0.2:5672: connection refused", Advice: "start RabbitMQ on that node"},
		{Part: "broker", Check: "node", Host: "gpu2", State: control.FindingWarn, Saw: "10.0.0.2:5672: connection refused", Advice: "start RabbitMQ on that node"},
		{Part: "broker", Check: "quorum", Host: "gpu1", State: control.FindingUnknown, Saw: "rabbitmqctl did not answer in time", Advice: "by hand: rabbitmqctl list_queues name members online"},
		{Part: "ledger", Check: "one ledger", Host: "gpu1", State: control.FindingFail, Saw: "the daemons on this broker have 2 different ledgers", Advice: "stop gpuqd on the hosts with the wrong one,\nand \x1b[31mset\x1b[0m [ledger] in their gpuqd.toml to the others', then start them"},
		{Part: "disk", Check: "fsync", Host: "gpu2", State: control.FindingOK, Saw: "a small file and its directory are on disk in 2.1 ms (median of 10; at most 9 ms)"},
	}
}

func TestDoctor(t *testing.T) {
	d := startDaemon(t)
	var asked []control.DoctorArgs
	answer := func(findings ...control.Finding) {
		d.doctor = func(a control.DoctorArgs) (control.DoctorReply, error) {
			asked = append(asked, a)
			return control.DoctorReply{Findings: findings}, nil
		}
	}
	t.Setenv("PATH", t.TempDir()) // without a rabbitmqctl
	answer(someFindings()...)
	golden(t, "doctor", gpuqctl(t, d, "doctor"))
	golden(t, "doctor-all", gpuqctl(t, d, "doctor", "--all"))
	golden(t, "doctor-json", gpuqctl(t, d, "doctor", "--json"))
	golden(t, "doctor-narrow", (&run{width: 60}).exec(t.Context(), d, "--color", "always", "doctor"))
	gpuqctl(t, d, "doctor", "--local")
	if len(asked) != 5 || asked[0].Local || !asked[4].Local {
		t.Errorf("asked %+v", asked)
	}

	t.Run("ExitCodeSaysWhetherSomethingFails", func(t *testing.T) {
		all := someFindings()
		for _, c := range []struct {
			findings []control.Finding
			strict   bool
			want     int
		}{
			{all[:1], false, exitOK},
			{all[:1], true, exitOK},
			{all[:2], false, exitOK},
			{all[:2], true, exitFailure},
			{all[3:4], false, exitOK},
			{all[3:4], true, exitFailure},
			{all[4:], false, exitFailure},
		} {
			answer(c.findings...)
			args := []string{"doctor", "--json"}
			if c.strict {
				args = append(args, "--strict")
			}
			r := gpuqctl(t, d, args...)
			r.want(t, c.want, anything, "")
			var got []control.Finding
			if err := json.Unmarshal([]byte(r.out.String()), &got); err != nil || len(got) != len(c.findings) {
				t.Errorf("%s: %v", r.out.String(), err)
			}
		}
	})
	t.Run("RabbitmqctlOfThisMachineSettlesWhatNoDaemonCould", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root is obeyed by rabbitmqctl")
		}
		// What the tool prints is the broker's business, tested there on a real
		// one; here it is whether it is asked, and who is believed.
		dir := t.TempDir()
		script := "#!/bin/sh\ncase $1 in\ncluster_status) echo '{\"disk_nodes\":[\"a\",\"b\"],\"running_nodes\":[\"a\",\"b\"]}' ;;\n*) exit 1 ;;\nesac\n"
		if err := os.WriteFile(filepath.Join(dir, "rabbitmqctl"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":/usr/bin:/bin") // before Debian's in /usr/sbin
		open := control.Finding{Part: "broker", Check: "members", Host: "gpu1", State: control.FindingUnknown, Saw: "AMQP does not tell", Advice: "by hand"}
		other := control.Finding{Part: "broker", Check: "quorum", Host: "gpu1", State: control.FindingUnknown, Saw: "AMQP does not tell", Advice: "by hand"}
		answer(open, other)
		r := gpuqctl(t, d, "doctor", "--all")
		r.want(t, exitOK, "2 of 2 members run", "")
		r.want(t, exitOK, "unknown  broker: quorum (on gpu1)", "")
	})
}

func TestDoctorWithoutADaemonSaysWhatItSees(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := gpuqctl(t, nil, "--socket", filepath.Join(dir, "none"), "--socket", dead, "--socket", plain, "doctor")
	for _, want := range []string{
		"fail  host: daemon", "no daemon answers", "none is not there", "systemctl start gpuqd",
		"dead is there, and nobody listens", "journalctl -u gpuqd", "plain is no socket", "name gpuqd's control.socket",
	} {
		r.want(t, exitFailure, want, anything)
	}

	t.Run("SettingsThatAreWrongAreNamed", func(t *testing.T) {
		path := filepath.Join(dir, "gpuqctl.toml")
		if err := os.WriteFile(path, []byte("sockets = [\"relative\"]\nwombat = 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := gpuqctl(t, nil, "--config", path, "doctor")
		r.want(t, exitFailure, "settings of gpuqctl", anything)
		r.want(t, exitFailure, "wombat", anything)
		r.want(t, exitFailure, "gpuqctl config check", anything)
	})
	t.Run("BrokerThatIsDownIsNamedWithoutItsPassword", func(t *testing.T) {
		path, secret := filepath.Join(dir, "remote.toml"), filepath.Join(dir, "password")
		if err := os.WriteFile(secret, []byte("not-to-be-told\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		text := "sockets = []\n[broker]\nurls = [\"amqp://127.0.0.1:1/\"]\nuser = \"ada\"\npassword_file = \"" + secret + "\"\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := gpuqctl(t, nil, "--config", path, "doctor", "--all")
		r.want(t, exitFailure, "127.0.0.1:1", anything)
		r.want(t, exitFailure, "0 sockets, then the broker with 1 nodes as ada", anything)
		if strings.Contains(r.out.String()+r.err.String(), "not-to-be-told") {
			t.Error("the password is in the report")
		}
	})
}

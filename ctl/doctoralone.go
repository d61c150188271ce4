package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
)

// The checks that gpuqctl makes itself where no daemon answers.
const (
	checkDaemon         = "daemon"
	checkSettings       = "settings of gpuqctl"
	checkSocket         = "socket"
	checkDaemonSettings = "settings of gpuqd"
)

// own is a finding of gpuqctl's.
func own(check string, state control.FindingState, advice, format string, args ...any) control.Finding {
	return control.Finding{Part: "host", Check: check, State: state, Saw: fmt.Sprintf(format, args...), Advice: advice}
}

// lookAlone says what can be seen without a daemon; cause is why there is none.
func (c *doctorCmd) lookAlone(cause error) []control.Finding {
	findings := []control.Finding{own(checkDaemon, control.FindingFail,
		"do what the other findings say; jobs that run go on meanwhile, until their host's lease ends", "no daemon answers: %v", cause)}
	sockets, settings := c.lookAtSettings()
	findings = append(findings, settings)
	for _, path := range sockets {
		findings = append(findings, lookAtSocket(path))
	}
	return append(findings, c.lookAtDaemonSettings())
}

// lookAtSettings returns the sockets that gpuqctl would try, and what is to be
// said of the settings.
func (c *doctorCmd) lookAtSettings() ([]string, control.Finding) {
	if len(c.sockets) > 0 {
		return c.sockets, own(checkSettings, control.FindingOK, "", "not read: --socket names where to ask")
	}
	path, err := config.ClientPath(c.configPath)
	if err != nil {
		return nil, own(checkSettings, control.FindingFail, "make the file readable for you, or name another with --config", "%v", err)
	}
	cfg, err := config.LoadClient(c.configPath)
	if err != nil {
		return nil, own(checkSettings, control.FindingFail, "correct the file: gpuqctl config check shows each line", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if path == "" {
		path = "no file, so the defaults"
	}
	if len(cfg.Broker.URLs) == 0 {
		return cfg.Sockets, own(checkSettings, control.FindingWarn, "on a machine without gpuqd, name the broker in gpuqctl.toml: [broker] urls, user, password_file",
			"%s: the only ways to a daemon are sockets of this machine", path)
	}
	return cfg.Sockets, own(checkSettings, control.FindingOK, "", "%s: %d sockets, then the broker with %d nodes as %s", path, len(cfg.Sockets), len(cfg.Broker.URLs), cfg.Broker.User)
}

// socketPatience bounds the look at one socket.
const socketPatience = 2 * time.Second

func lookAtSocket(path string) control.Finding {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return own(checkSocket, control.FindingFail, "start gpuqd here (systemctl start gpuqd; journalctl -u gpuqd says why it does not), or name its control.socket in gpuqctl.toml, sockets",
			"%s is not there", path)
	case errors.Is(err, fs.ErrPermission):
		return own(checkSocket, control.FindingFail, "the directory is closed to you: ask an operator for access, or use sudo", "%v", err)
	case err != nil:
		return own(checkSocket, control.FindingFail, "look at the path with ls -l", "%v", err)
	case info.Mode().Type() != fs.ModeSocket:
		return own(checkSocket, control.FindingFail, "name gpuqd's control.socket in gpuqctl.toml, sockets", "%s is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, socketPatience)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return own(checkSocket, control.FindingFail, "start gpuqd: systemctl status gpuqd, journalctl -u gpuqd", "%s is there, and nobody listens: its gpuqd has ended", path)
	case errors.Is(err, fs.ErrPermission):
		return own(checkSocket, control.FindingFail, "ask an operator for access to the socket, or use sudo", "%v", err)
	case err != nil:
		return own(checkSocket, control.FindingFail, "see whether gpuqd hangs: systemctl status gpuqd, journalctl -u gpuqd", "%v", err)
	}
	_ = conn.Close() // it was opened only to see whether somebody listens
	return own(checkSocket, control.FindingWarn, "see whether gpuqd hangs: systemctl status gpuqd, journalctl -u gpuqd", "%s: gpuqd listens", path)
}

// lookAtDaemonSettings reads the settings that a daemon here would start with.
func (c *doctorCmd) lookAtDaemonSettings() control.Finding {
	_, err := os.Stat(daemonConfigPath)
	if errors.Is(err, fs.ErrNotExist) {
		return own(checkDaemonSettings, control.FindingUnknown, "gpuqctl config check FILE, with the file that gpuqd --config gets, if one runs here", "there is no %s", daemonConfigPath)
	}
	if _, err = config.Load(daemonConfigPath); errors.Is(err, fs.ErrPermission) {
		return own(checkDaemonSettings, control.FindingUnknown, "sudo gpuqctl config check "+daemonConfigPath, "%v", err)
	}
	if err != nil {
		return own(checkDaemonSettings, control.FindingFail, "correct them: gpuqctl config check "+daemonConfigPath+" shows each line", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return own(checkDaemonSettings, control.FindingOK, "", "%s is right", daemonConfigPath)
}

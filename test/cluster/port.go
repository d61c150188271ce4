package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// portFree returns nil when a TCP port of 127.0.0.1 can be listened on. Else the
// error names who holds it, where that can be seen.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		return l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("try port %d: %w", port, err)
	}
	who := "a process that cannot be seen from here"
	if pid := listener(port); pid != 0 {
		who = fmt.Sprintf("process %d (%s)", pid, commandName(pid))
	}
	return fmt.Errorf("port %d is taken by %s: end it, or run `make down` and `make up` for a new cluster on other ports", port, who)
}

// listener returns the process that listens on a TCP port, 0 where unknown.
//
// Source: proc_net(5), /proc/net/tcp: local address, state 0A, inode.
func listener(port int) int {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
		_ = file.Close() // read only
	}
	if len(inodes) == 0 {
		return 0
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && inodes[target] {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2]) // digits, by the pattern
			return pid
		}
	}
	return 0
}

// commandName returns a process's name as ps shows it.
func commandName(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return "its name cannot be read"
	}
	return strings.TrimSpace(string(name))
}

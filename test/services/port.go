package services

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The ports that FreePorts hands out, up to but not with the second. They lie
// below those that the kernel gives to outgoing connections (32768 and up unless
// changed; ip(7), ip_local_port_range): a server that is down for a moment, or
// not up yet, would lose one of those to any connection on this machine.
const (
	firstPort = 15000
	afterPort = 32768
)

// FreePorts returns n distinct TCP ports of 127.0.0.1 that are free now. All
// processes of one user draw them in turn from one range, so that none is handed
// out twice before its server listens.
func FreePorts(n int) ([]int, error) {
	next, done, err := portCounter()
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	ports := make([]int, 0, n)
	for range afterPort - firstPort {
		if len(ports) == n {
			break
		}
		port := next
		if next++; next == afterPort {
			next = firstPort
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue // taken
		}
		_ = l.Close() // nothing has connected
		ports = append(ports, port)
	}
	if err := done(next); err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	if len(ports) < n {
		return nil, fmt.Errorf("find a free port: of %d to %d only %d are free, and %d are needed", firstPort, afterPort-1, len(ports), n)
	}
	return ports, nil
}

// portCounter locks the user's counter of ports and returns the next one. done
// saves the one after those taken and unlocks.
func portCounter() (next int, done func(next int) error, err error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("gpuq-next-port-%d", os.Getuid()))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		_ = file.Close() // nothing written
		return 0, nil, fmt.Errorf("lock %s: %w", path, err)
	}
	text := make([]byte, 16)
	n, _ := file.ReadAt(text, 0) // a new one is empty
	next, err = strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil || next < firstPort || next >= afterPort {
		next = firstPort + rand.IntN(afterPort-firstPort)
	}
	return next, func(next int) error {
		_, err := file.WriteAt(fmt.Appendf(nil, "%d\n", next), 0) // always five digits
		if closed := file.Close(); err == nil {
			err = closed
		}
		return err
	}, nil
}

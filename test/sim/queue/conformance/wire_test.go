package conformance

import (
	"net"
	"sync"
	"testing"
)

// wire is a way to one node that can be cut: then nothing gets through, and
// nobody is told.
type wire struct {
	listener net.Listener
	target   string
	copies   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn    // both ends of each connection
	whole chan struct{} // closed while it is not cut
	over  chan struct{} // closed at the end
}

func newWire(t *testing.T, port int) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{
		listener: listener, target: (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String(),
		whole: make(chan struct{}), over: make(chan struct{}),
	}
	close(w.whole)
	w.copies.Go(w.accept)
	t.Cleanup(w.end)
	return w
}

func (w *wire) port() int { return w.listener.Addr().(*net.TCPAddr).Port }

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cut {
		w.whole = make(chan struct{})
	} else {
		close(w.whole)
	}
}

// pass waits until something can get through. It returns false at the end.
func (w *wire) pass() bool {
	w.mu.Lock()
	whole := w.whole
	w.mu.Unlock()
	select {
	case <-whole:
		return true
	case <-w.over:
		return false
	}
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.copies.Go(func() { w.connect(near) })
	}
}

func (w *wire) connect(near net.Conn) {
	if !w.pass() {
		near.Close()
		return
	}
	far, err := net.Dial("tcp", w.target)
	if err != nil {
		near.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, near, far)
	w.mu.Unlock()
	select {
	case <-w.over: // too late to be closed by end
		near.Close()
		far.Close()
	default:
	}
	w.copies.Go(func() { w.carry(near, far) })
	w.carry(far, near)
}

// carry carries bytes one way, and the end of the connection after them.
func (w *wire) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if !w.pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) end() {
	close(w.over)
	w.listener.Close()
	w.mu.Lock()
	for _, c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	w.copies.Wait()
}

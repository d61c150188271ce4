package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"gpuqd/daemon/systembus"
)

// What logind is called on the bus.
const (
	login1    = "org.freedesktop.login1"
	manager   = login1 + ".Manager"
	login1Obj = dbus.ObjectPath("/org/freedesktop/login1")
)

// Notice is a word about the host: it goes down, or does not after all.
type Notice struct {
	Down   bool          // false: the shutdown that was announced does not happen
	Within time.Duration // from now on; then it goes down whatever is done
	By     string        // who says so, for people
	Done   func()        // lets it go down now; called once at least
}

// Logind listens to logind.
type Logind struct {
	// Tell passes a notice on. It returns soon, or when ctx ends.
	Tell func(ctx context.Context, n Notice)
	Log  *slog.Logger
	// Dial connects to the bus; nil is the system's.
	Dial func(ctx context.Context) (*dbus.Conn, error)

	// Of the one goroutine of Run.
	lock  *lock // nil while none is held
	going bool  // the host goes down, and that was passed on
	said  bool  // that there is no word from logind
}

// How long to wait before the bus is tried again.
const (
	redialMin = time.Second
	redialMax = time.Minute
)

// Run holds the lock and passes notices on until ctx ends. A host without bus or
// logind is one that has none yet: it is said once, and looked for again.
func (l *Logind) Run(ctx context.Context) error {
	defer func() { l.lock.release() }()
	for wait := redialMin; ; wait = min(2*wait, redialMax) {
		began := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		l.say("no word from logind; the session is released when systemd stops gpuqd with the system", err)
		if time.Since(began) > redialMax {
			wait = redialMin // it had been well
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// say logs a trouble once, until all is well again. That the bus goes with the
// host is none.
func (l *Logind) say(what string, err error) {
	if !l.said && !l.going {
		l.said = true
		l.Log.Info(what, "err", err)
	}
}

// listen serves one connection to the bus until it breaks.
func (l *Logind) listen(ctx context.Context) error {
	dial := l.Dial
	if dial == nil {
		dial = systembus.Bus
	}
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16) // logind sends two for each shutdown
	conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface(manager), dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(login1Obj)},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, login1)},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return fmt.Errorf("listen to logind: %w", err)
		}
	}
	// After the matches: what is announced from here on is heard.
	if err := l.take(ctx, conn); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Context().Done():
			return errors.New("the system bus closed the connection")
		case s, ok := <-signals:
			if !ok {
				return errors.New("the system bus closed the connection")
			}
			if err := l.hear(ctx, conn, s); err != nil {
				return err
			}
		}
	}
}

// hear acts on one signal.
func (l *Logind) hear(ctx context.Context, conn *dbus.Conn, s *dbus.Signal) error {
	switch s.Name {
	case manager + ".PrepareForShutdown":
		var down bool
		if err := dbus.Store(s.Body, &down); err != nil {
			return fmt.Errorf("understand logind's PrepareForShutdown: %w", err)
		}
		if down {
			l.announce(ctx, conn)
			return nil
		}
		l.calledOff(ctx)
		return l.take(ctx, conn)
	case "org.freedesktop.DBus.NameOwnerChanged":
		if len(s.Body) == 3 && s.Body[2] != "" {
			// A new logind: it may know nothing of the old one's locks.
			return l.take(ctx, conn)
		}
	}
	return nil
}

// announce passes on, once, that the host goes down. Done lets go of the lock that
// is held now, not of a later one.
func (l *Logind) announce(ctx context.Context, conn *dbus.Conn) {
	if l.going {
		return
	}
	held := l.lock
	l.lock, l.going = nil, true
	l.Tell(ctx, Notice{Down: true, Within: l.delay(ctx, conn), By: "logind", Done: held.release})
}

// calledOff passes on, once, that the host stays.
func (l *Logind) calledOff(ctx context.Context) {
	if l.going {
		l.going = false
		l.Tell(ctx, Notice{By: "logind"})
	}
}

// delayDefault is logind's own where it does not tell; delayMargin is for the way.
const (
	delayDefault = 5 * time.Second
	delayMargin  = 200 * time.Millisecond
)

// delay returns how long logind waits for the lock.
func (l *Logind) delay(ctx context.Context, conn *dbus.Conn) time.Duration {
	var most uint64 // microseconds
	err := l.property(ctx, conn, "InhibitDelayMaxUSec", &most)
	if err != nil || most > uint64(time.Hour/time.Microsecond) {
		l.Log.Warn("logind does not say how long it waits", "err", err, "duration_seconds", delayDefault.Seconds())
		return delayDefault - delayMargin
	}
	return max(0, time.Duration(most)*time.Microsecond-delayMargin)
}

func (l *Logind) property(ctx context.Context, conn *dbus.Conn, name string, into any) error {
	var v dbus.Variant
	err := conn.Object(login1, login1Obj).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, manager, name).Store(&v)
	if err == nil {
		err = v.Store(into)
	}
	if err != nil {
		return fmt.Errorf("ask logind for %s: %w", name, err)
	}
	return nil
}

// take takes a lock, in place of the one that may be held. What was announced or
// called off while nobody listened is passed on: nobody says it a second time.
func (l *Logind) take(ctx context.Context, conn *dbus.Conn) error {
	if l.going {
		if l.preparing(ctx, conn) {
			return nil // whoever was told has the lock
		}
		l.calledOff(ctx)
	}
	var fd dbus.UnixFD
	err := conn.Object(login1, login1Obj).CallWithContext(ctx, manager+".Inhibit", 0,
		"shutdown", "gpuqd", "ends this host's jobs and gives them to other hosts", "delay").Store(&fd)
	if err == nil {
		l.lock.release()
		l.lock = newLock(int(fd))
	}
	if l.preparing(ctx, conn) { // then no lock is given any more
		l.announce(ctx, conn)
		return nil
	}
	if err != nil {
		return fmt.Errorf("take logind's delay lock: %w", err)
	}
	l.said = false
	l.Log.Info("logind waits for this daemon before the host goes down", "duration_seconds", l.delay(ctx, conn).Seconds())
	return nil
}

// preparing reports whether the host goes down; where logind does not answer, its
// signal will tell.
func (l *Logind) preparing(ctx context.Context, conn *dbus.Conn) bool {
	var yes bool
	return l.property(ctx, conn, "PreparingForShutdown", &yes) == nil && yes
}

// lock is a delay lock: logind holds the host up until it is closed everywhere.
type lock struct {
	once sync.Once
	file *os.File
}

func newLock(fd int) *lock { return &lock{file: os.NewFile(uintptr(fd), "inhibitor")} }

// release lets the host go down. A nil lock holds nothing up.
func (l *lock) release() {
	if l != nil {
		l.once.Do(func() { _ = l.file.Close() }) // a pipe that nobody writes to
	}
}

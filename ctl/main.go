package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now,
		width: terminalWidth(os.Stdout), terminal: isTerminal(os.Stdout), asks: isTerminal(os.Stdin),
		patience: hostPatience,
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}

// terminalWidth returns the number of columns, or 0 where f is no terminal.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

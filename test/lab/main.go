package lab

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main runs the tests of a package (a *testing.M), takes their hosts down, also when
// they are interrupted, and exits. takeDown may be called twice.
func Main(tests interface{ Run() int }, takeDown func() error) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-interrupted
		_ = takeDown() // nobody is left to tell
		os.Exit(130)
	}()
	code := tests.Run()
	if err := takeDown(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

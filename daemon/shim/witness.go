package main

import (
	"fmt"
	"os"

	"gpuqd/daemon/runner"
)

// witness writes down what systemd saw of the end of the unit. It runs when the
// shim is gone, however it went.
//
// Source: systemd.exec(5), $SERVICE_RESULT, $EXIT_CODE, $EXIT_STATUS.
func witness(dir string) int {
	a, err := runner.OpenAttempt(dir)
	if err == nil {
		err = a.WriteWitness(runner.Witness{
			Result: os.Getenv("SERVICE_RESULT"), ExitCode: os.Getenv("EXIT_CODE"), ExitStatus: os.Getenv("EXIT_STATUS"),
			InvocationID: os.Getenv("INVOCATION_ID"),
		})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "write down the end of the unit: %v\n", err)
		return statusError
	}
	return statusDone
}

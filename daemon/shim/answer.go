package main

import (
	"os"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

// answer is the pipe on which the starter waits for one word. Nobody may be
// listening (any more): then the words go nowhere.
type answer struct{ pipe *os.File }

func newAnswer(o options) *answer {
	if o.answer != "" {
		// Without a reader this fails at once, where it would wait else.
		pipe, err := os.OpenFile(o.answer, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		if err != nil {
			note("nobody waits for the start: %v", err)
			return &answer{}
		}
		return &answer{pipe}
	}
	if o.answerFD < 0 {
		return &answer{}
	}
	unix.CloseOnExec(o.answerFD)
	return &answer{os.NewFile(uintptr(o.answerFD), "answer")}
}

// started says that the command was released, or has an exit record already.
func (a *answer) started() { a.say(runner.AnswerStarted) }

// refused says that the command never ran, and never will.
func (a *answer) refused(reason string) { a.say(runner.AnswerRefused + " " + reason) }

func (a *answer) say(text string) {
	if a.pipe == nil {
		return
	}
	// A starter that is gone reads the attempt's record later.
	_, _ = a.pipe.WriteString(text + "\n")
	a.close()
}

// close without a word tells the starter that the outcome is not known.
func (a *answer) close() {
	if a.pipe != nil {
		_ = a.pipe.Close() // nothing buffered
		a.pipe = nil
	}
}

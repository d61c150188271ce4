package main

import (
	"fmt"
	"os"

	"gpuqd/daemon/job"
)

// style is how a piece of text is set off on a terminal: the parameters of
// ECMA-48's SGR. "" is plain.
type style string

// The styles: the terminal's own colours, so that its theme keeps them legible
// on dark and on light.
const (
	plain  style = ""
	bold   style = "1"
	good   style = "32" // green
	bad    style = "31" // red
	middle style = "33" // yellow: it waits, or needs a look
)

// colourFlag is --color.
type colourFlag string

// The values of --color.
const (
	colourAuto   colourFlag = "auto"
	colourAlways colourFlag = "always"
	colourNever  colourFlag = "never"
)

// String implements pflag.Value.
func (c *colourFlag) String() string { return string(*c) }

// Type implements pflag.Value.
func (*colourFlag) Type() string { return "when" }

// Set implements pflag.Value.
func (c *colourFlag) Set(text string) error {
	switch colourFlag(text) {
	case colourAuto, colourAlways, colourNever:
		*c = colourFlag(text)
		return nil
	}
	return fmt.Errorf("want auto, always or never")
}

// colours reports whether stdout gets colours.
//
// Source: no-color.org, which has any value but "" count.
func (a *app) colours() bool {
	switch a.colour {
	case colourAlways:
		return true
	case colourNever:
		return false
	}
	return a.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// paint sets text off, if stdout gets colours.
func (a *app) paint(s style, text string) string { return paint(a.colours(), s, text) }

func paint(on bool, s style, text string) string {
	if !on || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// stateStyle returns the style of a job's state.
func stateStyle(s job.State) style {
	switch s {
	case job.Running, job.Claimed:
		return bold
	case job.Succeeded:
		return good
	case job.Failed, job.Dead:
		return bad
	case job.Retrying, job.Waiting, job.Killed:
		return middle
	}
	return plain
}

// deviceStyle returns the style of a device's state.
func deviceStyle(state string) style {
	switch state {
	case "free":
		return good
	case "busy":
		return bold
	case "draining", "cordoned", "checking":
		return middle
	case "sick":
		return bad
	}
	return plain
}

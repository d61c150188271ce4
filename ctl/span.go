package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// day is a length of 24 hours; summer time is left aside.
const day = 24 * time.Hour

// spanFlag is a flag for a length of time that people also give in days, such as
// 90m, 12h or 30d. It is never negative.
type spanFlag time.Duration

// String implements pflag.Value.
func (s *spanFlag) String() string {
	switch d := time.Duration(*s); {
	case d == 0:
		return "0"
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	default:
		return d.String()
	}
}

// Type implements pflag.Value.
func (*spanFlag) Type() string { return "duration" }

// Set implements pflag.Value.
func (s *spanFlag) Set(text string) error {
	d, err := parseSpan(text)
	if err != nil || d < 0 {
		return fmt.Errorf("want a number with its unit, such as 90m, 12h or 7d")
	}
	*s = spanFlag(d)
	return nil
}

func parseSpan(text string) (time.Duration, error) {
	days, found := strings.CutSuffix(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil || math.IsNaN(n) || n*float64(day) > math.MaxInt64 || n < 0 {
		return 0, strconv.ErrRange
	}
	return time.Duration(n * float64(day)), nil
}

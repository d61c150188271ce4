package monitoring

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	// yamlDuration is how long an alert waits, and how often a group is evaluated.
	yamlDuration = regexp.MustCompile(`(?m)^(\s+(?:for|interval): )([0-9][0-9a-z]*)$`)
	// window is a range, or a subquery with its step.
	window = regexp.MustCompile(`\[([0-9][0-9a-z]*)(?::([0-9][0-9a-z]*))?\]`)
	offset = regexp.MustCompile(`\boffset ([0-9][0-9a-z]*)`)
	// marked is a number of seconds that a value is compared with.
	marked = regexp.MustCompile(`([0-9.]+) # seconds`)
	part   = regexp.MustCompile(`([0-9]+)(ms|[smhdwy])`)
)

// Scale returns rules in which every duration is multiplied by a factor: for:,
// interval:, windows, offsets, and numbers that are followed by "# seconds". Windows
// stay as long as least, so that a few scrapes fit in. What is left as it is are times
// to come: 24 hours of predict_linear, the days that a certificate has left.
func Scale(rules []byte, factor float64, least time.Duration) ([]byte, error) {
	s := scaler{factor: factor}
	text := string(rules)
	text = s.replace(yamlDuration, text, func(m []string) string { return m[1] + s.duration(m[2], 0) })
	text = s.replace(window, text, func(m []string) string {
		if m[2] == "" {
			return "[" + s.duration(m[1], least) + "]"
		}
		return "[" + s.duration(m[1], least) + ":" + s.duration(m[2], time.Millisecond) + "]"
	})
	text = s.replace(offset, text, func(m []string) string { return "offset " + s.duration(m[1], 0) })
	text = s.replace(marked, text, func(m []string) string {
		seconds, err := strconv.ParseFloat(m[1], 64)
		s.note(err)
		return strconv.FormatFloat(seconds*factor, 'f', -1, 64) + " # seconds"
	})
	return []byte(text), s.err
}

// scaler keeps the first error of many replacements.
type scaler struct {
	factor float64
	err    error
}

func (s *scaler) note(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *scaler) replace(what *regexp.Regexp, in string, by func(match []string) string) string {
	return what.ReplaceAllStringFunc(in, func(found string) string { return by(what.FindStringSubmatch(found)) })
}

// duration scales one of Prometheus's durations.
func (s *scaler) duration(text string, least time.Duration) string {
	d, err := parseDuration(text)
	s.note(err)
	scaled := max(least, time.Duration(float64(d)*s.factor))
	return fmt.Sprintf("%dms", scaled.Milliseconds())
}

var units = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
}

func parseDuration(text string) (d time.Duration, err error) {
	if strings.Join(part.FindAllString(text, -1), "") != text {
		return 0, fmt.Errorf("%q is no duration of Prometheus", text)
	}
	for _, m := range part.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, fmt.Errorf("%q is no duration of Prometheus: %w", text, err)
		}
		d += time.Duration(n) * units[m[2]]
	}
	return d, nil
}

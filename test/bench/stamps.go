package bench

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/job"
)

// stamp is the word of one payload (gpuq-stamp).
type stamp struct {
	job        job.ID
	devices    string
	start, end int64 // nanoseconds of CLOCK_REALTIME
}

// readStamps reads what payloads have appended to a file; none there is no error.
func readStamps(path string) ([]stamp, error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []stamp
	for line := range bytes.Lines(data) {
		s, err := parseStamp(string(line))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, s)
	}
	return list, nil
}

func parseStamp(line string) (s stamp, err error) {
	words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(words) != 4 {
		return s, fmt.Errorf("%q is no stamp", line)
	}
	s.job, s.devices = job.ID(words[0]), words[1]
	if s.start, err = strconv.ParseInt(words[2], 10, 64); err != nil {
		return s, err
	}
	s.end, err = strconv.ParseInt(words[3], 10, 64)
	return s, err
}

// gaps returns the milliseconds from the end of each payload to the start of the
// next on the same device.
func gaps(stamps []stamp) []float64 {
	byDevice := map[string][]stamp{}
	for _, s := range stamps {
		byDevice[s.devices] = append(byDevice[s.devices], s)
	}
	var list []float64
	for _, of := range byDevice {
		slices.SortFunc(of, func(a, b stamp) int { return int(a.start - b.start) })
		for i := 1; i < len(of); i++ {
			list = append(list, float64(of[i].start-of[i-1].end)/1e6)
		}
	}
	return list
}

// share returns how much of the time of n devices payloads had, from the first
// start to the last end.
func share(stamps []stamp, n int) float64 {
	if len(stamps) == 0 {
		return 0
	}
	first, last, busy := stamps[0].start, stamps[0].end, int64(0)
	for _, s := range stamps {
		first, last, busy = min(first, s.start), max(last, s.end), busy+s.end-s.start
	}
	return ratio(float64(busy), float64(n)*float64(last-first))
}

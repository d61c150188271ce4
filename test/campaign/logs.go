package campaign

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// entry is a line of a daemon's log.
type entry struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Msg        string    `json:"msg"`
	Job        string    `json:"job_id"`
	Queue      string    `json:"queue"`
	Reason     string    `json:"reason"`
	Err        string    `json:"err"`
	Generation uint64    `json:"generation"`
	Tag        uint64    `json:"delivery_tag"`
	Attempt    int       `json:"attempt"`

	host string
	raw  string // where it is no JSON: the end of a daemon that tells nobody else why
}

// logLineMax bounds a line: a result's log tail or a stack.
const logLineMax = 4 << 20

// readLog reads the log of a worker.
func readLog(path, host string) ([]entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var list []entry
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 64<<10), logLineMax)
	for lines.Scan() {
		e := entry{host: host}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e = entry{host: host, raw: lines.Text()}
			if len(list) > 0 {
				e.Time = list[len(list)-1].Time
			}
		}
		list = append(list, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read log %s: %w", path, err)
	}
	return list, nil
}

// life is one life of a daemon's process, by its supervisor.
type life struct {
	host        string
	began, over time.Time // over is zero where it was alive at the end
	reason      string    // how it ended by itself; "" where it was kept down
}

// byItself reports whether the process ended, and neither a fault nor its
// supervisor ended it.
func (l life) byItself() bool { return l.reason != "" && !strings.Contains(l.reason, "signal: killed") }

// supervision is a line of the supervisor's log.
type supervision struct {
	Time   time.Time `json:"time"`
	Msg    string    `json:"msg"`
	Unit   string    `json:"unit"`
	Reason string    `json:"reason"`
	Err    string    `json:"err"`
	To     string    `json:"state_to"`
}

// readLives reads the supervisor's log. The first start of a unit is not in it,
// but that the unit runs then is.
func readLives(path string, hosts []string) ([]life, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []*life
	current := map[string]*life{}
	for raw := range bytes.Lines(text) {
		var s supervision
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("log of the supervisor: %q: %w", raw, err)
		}
		if !slices.Contains(hosts, s.Unit) {
			continue
		}
		l := current[s.Unit]
		switch {
		case l == nil || s.To == "starting":
			l = &life{host: s.Unit, began: s.Time}
			current[s.Unit], list = l, append(list, l)
		case s.Msg == "unit ended":
			l.over, l.reason = s.Time, s.Reason
		case s.Msg == "unit not started":
			l.over, l.reason = s.Time, s.Err
		case l.over.IsZero() && (s.To == "down" || s.To == "pausing"):
			l.over = s.Time
		}
	}
	lives := make([]life, len(list))
	for i, l := range list {
		lives[i] = *l
	}
	return lives, nil
}

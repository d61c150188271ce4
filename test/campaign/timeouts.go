package campaign

import (
	"bufio"
	"os"
	"strings"
)

// countTimeouts counts the deliveries that the broker's nodes closed a channel
// over, since they were open for longer than consumer_timeout.
func (r *rig) countTimeouts() (n int, err error) {
	for _, node := range r.RabbitNodes() {
		file, err := os.Open(r.LogPath(node))
		if err != nil {
			return 0, err
		}
		lines := bufio.NewScanner(file)
		lines.Buffer(make([]byte, 64<<10), logLineMax)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "has timed out waiting") {
				n++
			}
		}
		_ = file.Close() // read only
		if err := lines.Err(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

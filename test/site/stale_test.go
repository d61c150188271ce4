package site

import (
	"regexp"
	"strings"
	"testing"
)

var (
	taskStart = regexp.MustCompile(`(?m)^ *- name: `)
	destined  = regexp.MustCompile(`(?m)^ *dest: (/.+)$|\{.*\bdest: (/[^,}]+)`)
	itemName  = regexp.MustCompile(`- \{name: ([a-z]+),`)
)

// TestLostRestartsAreFound holds a role's list of what its service reads to what
// the role restarts that service for: a file that is missing there would be written
// by a run that is cut off, and never read.
func TestLostRestartsAreFound(t *testing.T) {
	for role, c := range map[string]struct{ files int }{"rabbitmq": {7}, "mongodb": {3}, "gpuqd": {5}} {
		tasks := read(t, "roles", role, "tasks", "configure.yml")
		starts := append(taskStart.FindAllStringIndex(tasks, -1), []int{len(tasks)})
		listed, found := "", map[string]bool{}
		for i := range len(starts) - 1 {
			task := tasks[starts[i][0]:starts[i+1][0]]
			if strings.Contains(task, "tasks_from: stale") {
				listed += task
				continue
			}
			if !strings.Contains(task, "notify: ") {
				continue
			}
			for _, match := range destined.FindAllStringSubmatch(task, -1) {
				path := match[1] + match[2]
				if !strings.Contains(path, "{{ item.name }}") {
					found[path] = true
					continue
				}
				for _, name := range itemName.FindAllStringSubmatch(task, -1) {
					found[strings.ReplaceAll(path, "{{ item.name }}", name[1])] = true
				}
			}
		}
		// The cookie never changes below a node that runs: the role refuses that.
		delete(found, "/var/lib/rabbitmq/.erlang.cookie")
		if len(found) != c.files {
			t.Errorf("role %s writes %v for its service, %d files: want %d, or this test reads it wrongly", role, found, len(found), c.files)
		}
		for path := range found {
			if !regexp.MustCompile(regexp.QuoteMeta(path) + `[\n,\]]`).MatchString(listed) {
				t.Errorf("role %s restarts its service for %s, and does not look whether it runs by an older one", role, path)
			}
		}
	}
}

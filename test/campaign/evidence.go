package campaign

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// keep copies what the judgement rests on into the evidence directory, if there
// is one: the documents, and the logs of all servers and daemons.
func (c *campaign) keep(h *harvest) error {
	if c.o.Evidence == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(c.o.Evidence, "witness"), 0o755); err != nil {
		return err
	}
	docs, err := json.MarshalIndent(h.docs, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.o.Evidence, "documents.json"), docs, 0o644); err != nil {
		return err
	}
	var files []string
	for _, unit := range c.rig.units() {
		files = append(files, c.rig.LogPath(unit))
	}
	files = append(files, filepath.Join(filepath.Dir(c.rig.witness), supervisionFile))
	for _, path := range files {
		if err := copyFile(path, filepath.Join(c.o.Evidence, filepath.Base(path))); err != nil {
			return err
		}
	}
	for worker := range c.rig.disks {
		if err := c.keepAttempts(worker); err != nil {
			return err
		}
	}
	return nil
}

// keepAttempts copies the words of a worker's shims.
func (c *campaign) keepAttempts(worker string) error {
	logs, err := filepath.Glob(filepath.Join(c.rig.StateDir(worker), "attempts", "*", "shim.log"))
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(c.o.Evidence, worker+".shims.log"))
	if err != nil {
		return err
	}
	defer out.Close()
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(text) > 0 {
			fmt.Fprintf(out, "%s\n%s\n", filepath.Base(filepath.Dir(path)), text)
		}
	}
	return nil
}

// keepVerdict writes the whole history, and the story of each job over which a
// promise was broken.
func (c *campaign) keepVerdict(events []history.Event, found []history.Violation, r *Result) error {
	if c.o.Evidence == "" {
		return nil
	}
	var all, stories strings.Builder
	for _, e := range events {
		fmt.Fprintf(&all, "%s %s\n", e, e.Job)
	}
	seen := map[job.ID]bool{}
	for _, v := range found {
		fmt.Fprintln(&stories, v)
		if v.Job != "" && !seen[v.Job] {
			seen[v.Job] = true
			fmt.Fprintln(&stories, history.Story(events, v.Job))
		}
	}
	for name, text := range map[string]string{"events.txt": all.String(), "violations.txt": stories.String()} {
		if err := os.WriteFile(filepath.Join(c.o.Evidence, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return r.Save(filepath.Join(c.o.Evidence, "result.json"))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("keep %s: %w", from, err)
	}
	return out.Close()
}

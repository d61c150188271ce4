package docs

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// python returns the page's code blocks of that language.
func python(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, b := range readPage(t).blocks() {
		if b.label == "python" {
			list = append(list, b.text)
		}
	}
	if len(list) != 2 {
		t.Fatalf("the page has %d clients in Python, want that of the socket and that of the broker", len(list))
	}
	return list
}

func runPython(t *testing.T, script string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"-c", script}, args...)...)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errors.String())
	}
	return string(out)
}

func TestPythonOfThePageIsPython(t *testing.T) {
	for _, text := range python(t) {
		runPython(t, "import ast, sys; ast.parse(sys.argv[1])", text)
	}
}

// handler answers list and kill; the other verbs are not asked for here.
type handler struct {
	control.Handler
	killed chan control.KillArgs
}

func (handler) List(context.Context, control.Caller, control.ListArgs) (control.ListReply, error) {
	return control.ListReply{Jobs: []control.JobRow{{ID: "01a203f3-9dd4-7c7d-881d-974c9ebb04e7", State: job.Queued}}}, nil
}

func (h handler) Kill(_ context.Context, _ control.Caller, args control.KillArgs) (control.KillReply, error) {
	h.killed <- args
	return control.KillReply{State: job.Running, Flagged: true}, nil
}

// The page's client of the socket speaks with the daemon's own server.
func TestSocketClientOfThePage(t *testing.T) {
	dir, err := os.MkdirTemp("", "gpuq") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	h := handler{killed: make(chan control.KillArgs, 1)}
	server := control.NewServer(h, control.Options{Socket: path})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)

	client := python(t)[0] + "\nimport sys\nprint(json.dumps(ask(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))\n"
	list := runPython(t, client, path, "list", `{"states":["queued"]}`)
	var res control.Response
	if err := json.Unmarshal([]byte(list), &res); err != nil || res.Error != nil || !strings.Contains(string(res.Data), "01a203f3") {
		t.Errorf("list gave %s (%v)", list, err)
	}
	id := job.NewID()
	kill := runPython(t, client, path, "kill", `{"id":"`+string(id)+`","reason":"wrong data set"}`)
	if got := <-h.killed; got.ID != id || got.Reason != "wrong data set" || !strings.Contains(kill, `"flagged": true`) {
		t.Errorf("kill asked for %+v and gave %s", got, kill)
	}
}

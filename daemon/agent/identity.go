package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gpuqd/daemon/durable"
	"gpuqd/daemon/runner"

	"github.com/google/uuid"
)

// LoadIdentity reads who this installation is. The install ID is made at the
// first start and kept in the state directory: two directories are two
// installations, even on one machine.
func LoadIdentity(stateDir string) (Identity, error) {
	boot, err := runner.BootID()
	if err != nil {
		return Identity{}, fmt.Errorf("read the boot ID: %w", err)
	}
	install, err := installID(filepath.Join(stateDir, "install_id"))
	if err != nil {
		return Identity{}, fmt.Errorf("read the install ID: %w", err)
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("read the machine ID: %w", err)
	}
	return Identity{InstallID: install, MachineID: strings.TrimSpace(string(machine)), BootID: boot}, nil
}

// installID reads the file, or makes it. The caller holds the state directory's
// lock, so nobody else makes it meanwhile.
func installID(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id := uuid.NewString()
		return id, durable.Replace(path, []byte(id+"\n"))
	}
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(text))
	if _, err := uuid.Parse(id); err != nil {
		return "", fmt.Errorf("%s holds %q, which is no UUID: restore it, or remove it to make this a new installation", path, id)
	}
	return id, nil
}

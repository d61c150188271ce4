package gpucheck

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// smiGPU is a GPU as nvidia-smi tells of it.
type smiGPU struct {
	index             int
	uuid, name        string
	memoryMiB         uint64
	pci               string // in the form that normalPCI makes
	migEnabled        bool
	driver            string
	computeCapability string // "" where this nvidia-smi does not tell
	instances         []smiInstance
}

// smiInstance is a MIG instance.
type smiInstance struct{ uuid, profile string }

// smiWait bounds one call of nvidia-smi, which initialises the driver where nothing
// keeps it.
const smiWait = 60 * time.Second

// smi runs nvidia-smi. One that hangs in the driver cannot be killed, and is left
// behind.
func (b *bench) smi(ctx context.Context, args ...string) (string, error) {
	call := b.SMI + " " + strings.Join(args, " ")
	ctx, cancel := context.WithTimeoutCause(ctx, smiWait, fmt.Errorf("%s: no answer within %s", call, smiWait))
	defer cancel()
	cmd := exec.CommandContext(ctx, b.SMI, args...)
	cmd.WaitDelay = time.Second
	type answer struct {
		out []byte
		err error
	}
	answers := make(chan answer, 1) // nobody may listen any more
	go func() {
		out, err := cmd.CombinedOutput()
		answers <- answer{out, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case a := <-answers:
		if said := strings.TrimSpace(string(a.out)); a.err != nil && said != "" {
			a.err = fmt.Errorf("%w: %s", a.err, said)
		}
		if a.err != nil {
			return "", fmt.Errorf("%s: %w", call, a.err)
		}
		return string(a.out), nil
	}
}

// queried are the columns that are asked for, in order.
const queried = "index,uuid,name,memory.total,pci.bus_id,mig.mode.current,driver_version"

// gpus asks nvidia-smi for all that is compared.
func (b *bench) gpus(ctx context.Context) ([]smiGPU, error) {
	table, err := b.smi(ctx, "--query-gpu="+queried, "--format=csv,noheader,nounits")
	if err != nil {
		return nil, err
	}
	list, err := b.smi(ctx, "-L")
	if err != nil {
		return nil, err
	}
	all, err := parseTable(table)
	if err == nil {
		err = addInstances(all, list)
	}
	if err != nil {
		return nil, fmt.Errorf("read what nvidia-smi prints: %w", err)
	}
	// An older nvidia-smi does not know this column, and refuses a query with it.
	if caps, err := b.smi(ctx, "--query-gpu=compute_cap", "--format=csv,noheader,nounits"); err == nil {
		for i, line := range nonempty(caps) {
			if i < len(all) {
				all[i].computeCapability = line
			}
		}
	}
	return all, nil
}

func nonempty(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// parseTable reads the answer to a query of the columns in queried.
func parseTable(text string) ([]smiGPU, error) {
	var all []smiGPU
	for _, line := range nonempty(text) {
		f := strings.Split(line, ", ")
		if len(f) != strings.Count(queried, ",")+1 {
			return nil, fmt.Errorf("%q has not the columns %s", line, queried)
		}
		index, err := strconv.Atoi(f[0])
		memory, err2 := strconv.ParseUint(f[3], 10, 64)
		if err = errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all = append(all, smiGPU{
			index: index, uuid: f[1], name: f[2], memoryMiB: memory, pci: normalPCI(f[4]),
			migEnabled: f[5] == "Enabled", driver: f[6],
		})
	}
	return all, nil
}

var (
	gpuLine      = regexp.MustCompile(`^GPU \d+: .* \(UUID: (\S+)\)$`)
	instanceLine = regexp.MustCompile(`^MIG (\S+) +Device +\d+: \(UUID: (\S+)\)$`)
)

// addInstances reads the list of nvidia-smi -L, in which a GPU's MIG instances
// follow it.
func addInstances(all []smiGPU, text string) error {
	current := -1
	for _, line := range nonempty(text) {
		if m := gpuLine.FindStringSubmatch(line); m != nil {
			if current++; current >= len(all) || all[current].uuid != m[1] {
				return fmt.Errorf("the list has %s where the table has another GPU or none", m[1])
			}
			continue
		}
		m := instanceLine.FindStringSubmatch(line)
		if m == nil || current < 0 {
			return fmt.Errorf("%q is neither a GPU nor an instance of one", line)
		}
		all[current].instances = append(all[current].instances, smiInstance{uuid: m[2], profile: m[1]})
	}
	if current+1 != len(all) {
		return fmt.Errorf("the list has %d GPUs, the table %d", current+1, len(all))
	}
	return nil
}

// normalPCI writes a PCI address in one form: nvidia-smi has eight digits of the
// domain and capital letters, sysfs four and small ones.
func normalPCI(address string) string {
	domain, rest, ok := strings.Cut(strings.ToLower(address), ":")
	if !ok {
		return address
	}
	return fmt.Sprintf("%04s:%s", strings.TrimLeft(domain, "0"), rest)
}

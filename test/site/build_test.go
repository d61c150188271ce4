package site

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Versions of gpuqd's packages, built from this tree; both are the same but for
// what they say of themselves.
const (
	versionFirst = "1.0.0"
	versionNext  = "1.1.0"
)

// build makes gpuqd's packages in both versions, and those of what Debian lacks:
// Loki, Promtail and the ledger's stand-in.
func (s *site) build(ctx context.Context) error {
	s.debs = os.Getenv("GPUQ_SITE_DEBS")
	if s.debs == "" {
		s.debs = filepath.Join(s.dir, "debs")
		for _, version := range []string{versionFirst, versionNext} {
			cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", root, "packages/build", "VERSION="+version, "OUT="+filepath.Join(s.debs, version))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("make packages/build: %w: %s", err, out)
			}
		}
	}
	s.thirdParty = filepath.Join(s.dir, "thirdparty")
	cmd := exec.CommandContext(ctx, "packaging/thirdparty/build.sh", "loki", "promtail", "gpuq-mongowire")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "OUT="+s.thirdParty)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packaging/thirdparty/build.sh: %w: %s", err, out)
	}
	return nil
}

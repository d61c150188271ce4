package site

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"gpuqd/test/services"
)

// Versions of gpuqd's packages, built from this tree; both are the same but for
// what they say of themselves.
const (
	versionFirst = "1.0.0"
	versionNext  = "1.1.0"
)

// build makes gpuqd's packages in both versions, and that of the ledger's stand-in.
func (s *site) build(ctx context.Context) error {
	debs := os.Getenv("GPUQ_SITE_DEBS")
	if debs == "" {
		debs = filepath.Join(s.dir, "debs")
		for _, version := range []string{versionFirst, versionNext} {
			cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", root, "packages/build", "VERSION="+version, "OUT="+filepath.Join(debs, version))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("make packages/build: %w: %s", err, out)
			}
		}
	}
	s.debs = debs
	return s.buildWire(ctx)
}

// wireConfig is nfpm's, of a package with the stand-in and its unit. Whoever
// reaches it may read and write all: it is for a lab's network.
const wireConfig = `name: mongowire
arch: %s
platform: linux
version: 1.0.0
maintainer: gpuqd maintainers <maintainers@gpuqd.example>
description: MongoDB-wire server for tests of gpuqd
contents:
  - {src: %q, dst: /usr/sbin/mongowire, file_info: {mode: 0755}}
  - {src: %q, dst: /usr/lib/systemd/system/mongowire.service, file_info: {mode: 0644}}
`

const wireUnit = `[Unit]
Description=MongoDB-wire server for tests of gpuqd
[Service]
ExecStart=/usr/sbin/mongowire --listen 0.0.0.0:27017 --any-address --dir /var/lib/mongowire
StateDirectory=mongowire
StateDirectoryMode=0700
Restart=always
[Install]
WantedBy=multi-user.target
`

func (s *site) buildWire(ctx context.Context) error {
	program, err := services.BuildMongowire(ctx)
	if err != nil {
		return err
	}
	unit := filepath.Join(s.dir, "mongowire.service")
	config := filepath.Join(s.dir, "mongowire.yaml")
	s.wire = filepath.Join(s.dir, "mongowire.deb")
	if err := os.WriteFile(unit, []byte(wireUnit), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, wireConfig, runtime.GOARCH, program, unit), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=test/tools/nfpm/go.mod", "nfpm", "package",
		"--config", config, "--packager", "deb", "--target", s.wire)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nfpm package: %w: %s", err, out)
	}
	return nil
}

package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Programs returns a fingerprint of the programs that a cluster runs for long:
// it changes when they are built from other code.
func Programs(binDir string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"gpuqd", "gpuq-cluster"} {
		file, err := os.Open(filepath.Join(binDir, name))
		if err != nil {
			return "", fmt.Errorf("%s is not built: run make build (%w)", name, err)
		}
		_, err = io.Copy(sum, file)
		_ = file.Close() // read only
		if err != nil {
			return "", fmt.Errorf("read program %s: %w", name, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

package proctree

import (
	"os"
	"path/filepath"
	"testing"
)

// The service manager's word on the boot counts before /proc, where it has one.
func TestBootIDIsWhatTheServiceManagerPasses(t *testing.T) {
	kernel, err := bootID("")
	if err != nil || len(kernel) != 36 {
		t.Fatalf("the kernel's is %q, %v", kernel, err)
	}
	dir := t.TempDir()
	if got, err := bootID(dir); got != kernel || err != nil {
		t.Errorf("without that credential it is %q, %v, want %q", got, err, kernel)
	}
	const passed = "15f75c75-2631-45ac-9455-033f8a09b9ee"
	if err := os.WriteFile(filepath.Join(dir, "boot_id"), []byte(passed+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if got, err := bootID(dir); got != passed || err != nil {
		t.Errorf("with it %q, %v, want %q", got, err, passed)
	}
}

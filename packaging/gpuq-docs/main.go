// Gpuq-docs writes what comes with the packages beside programs: the manual
// pages, from what the programs say of themselves with --help and from the
// shipped configuration; the changelogs of dpkg and rpm, from CHANGELOG.md; and
// the licences of all that is linked in.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// build is what the documents say of the packages that they are for.
type build struct {
	version    string // such as 1.2.3, of which -1 is the revision
	maintainer string // name <address>
	date       time.Time
}

func main() {
	root := flag.String("root", ".", "the source `directory`")
	programs := flag.String("programs", "", "the `directory` of the built gpuqd and gpuqctl")
	out := flag.String("out", "", "write below this `directory`")
	var b build
	flag.StringVar(&b.version, "version", "", "the `version` of the packages")
	flag.StringVar(&b.maintainer, "maintainer", "", "who answers for them, `name <address>`")
	epoch := flag.Int64("epoch", 0, "the time of the commit, in `seconds` since 1970")
	flag.Parse()
	b.date = time.Unix(*epoch, 0).UTC()
	if flag.NArg() > 0 || *programs == "" || *out == "" || b.version == "" || b.maintainer == "" || *epoch == 0 {
		fmt.Fprintln(os.Stderr, "gpuq-docs: want all of --programs, --out, --version, --maintainer and --epoch, and no arguments")
		os.Exit(2)
	}
	if err := write(b, *root, *programs, *out); err != nil {
		fmt.Fprintf(os.Stderr, "gpuq-docs: %v\n", err)
		os.Exit(1)
	}
}

// write makes all files: name to content, each below out.
func write(b build, root, programs, out string) error {
	files, err := manual(b, root, programs)
	if err != nil {
		return err
	}
	log, err := readChangelog(filepath.Join(root, "CHANGELOG.md"), b)
	if err != nil {
		return err
	}
	files["changelog.rpm.yaml"] = rpmChangelog(log, b)
	for name, sources := range linked {
		files[name+"/changelog.Debian"] = debianChangelog(log, name, b)
		if files[name+"/copyright"], err = copyright(root, name, sources); err != nil {
			return err
		}
	}
	for name, text := range files {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

package device

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestXIDTable(t *testing.T) {
	all := XIDs()
	for i, x := range all {
		if i > 0 && all[i-1].Code >= x.Code {
			t.Errorf("%d comes after %d", x.Code, all[i-1].Code)
		}
		if x.Name == "" || x.Remedy == "" || x.Source == "" {
			t.Errorf("%d lacks a name, a remedy or a source: %+v", x.Code, x)
		}
		if !slices.Contains([]XIDClass{XIDApplication, XIDDevice, XIDHost, XIDNotice}, x.Class) {
			t.Errorf("%d is of class %q", x.Code, x.Class)
		}
		if got := LookUpXID(x.Code); got != x {
			t.Errorf("%d is found as %+v", x.Code, got)
		}
	}
	for class, codes := range map[XIDClass][]int{
		XIDApplication: {8, 11, 13, 25, 31, 32, 43, 44, 45, 66, 68, 69, 137},
		XIDDevice:      {46, 48, 61, 62, 64, 74, 79, 94, 95, 109, 110, 119, 120, 136, 140, 143, 144, 150, 156, 158, 171, 172},
		XIDHost:        {151, 159},
		XIDNotice:      {63, 92, 106, 107, 121, 154},
		XIDUnknown:     {-1, 0, 1, 12, 173, 9999},
	} {
		for _, code := range codes {
			if got := LookUpXID(code).Class; got != class {
				t.Errorf("%d is of class %s, want %s", code, got, class)
			}
		}
	}
}

// The page's table is the code's, row by row.
func TestXIDTableIsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/devices.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, x := range XIDs() {
		fmt.Fprintf(&want, "| %d | %s | %s | %s |\n", x.Code, x.Name, x.Class, x.Remedy)
	}
	const head = "| XID | What it means | Class | What to do |\n|---|---|---|---|\n"
	_, rest, _ := strings.Cut(string(page), head)
	table, _, _ := strings.Cut(rest, "\n\n")
	got, rows := strings.Split(strings.TrimSpace(table), "\n"), strings.Split(strings.TrimSpace(want.String()), "\n")
	for i := range max(len(got), len(rows)) {
		var is, should string
		if i < len(got) {
			is = got[i]
		}
		if i < len(rows) {
			should = rows[i]
		}
		if is != should {
			t.Fatalf("row %d of the table of XIDs in docs/devices.md is\n%s\nand the code says\n%s", i+1, is, should)
		}
	}
}

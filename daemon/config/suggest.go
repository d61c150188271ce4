package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// unknown says what may have been meant by a key or section that does not
// exist. The nearest name in the same section comes first, then the same name
// elsewhere, then the nearest anywhere, then all there is to choose from.
func unknown(known []string, key toml.Key, isSection bool) string {
	if isSection && len(key) == 1 {
		return unknownSection(known, key[0])
	}
	section, name := strings.Join(key[:len(key)-1], "."), key[len(key)-1]
	var here, elsewhere []string
	for _, k := range known {
		s, n := split(k)
		if s == section {
			here = append(here, n)
		}
		if n == name {
			elsewhere = append(elsewhere, k)
		}
	}
	if near, ok := nearest(here, name); ok {
		return fmt.Sprintf("there is no such key; the nearest is %s", dotted(section, near))
	}
	if len(elsewhere) > 0 {
		return fmt.Sprintf("there is no such key; the nearest is %s: a key goes below the [section] it belongs to", strings.Join(elsewhere, " or "))
	}
	if near, ok := nearest(known, dotted(section, name)); ok {
		return fmt.Sprintf("there is no such key; the nearest is %s", near)
	}
	if len(here) == 0 {
		return fmt.Sprintf("there is no such key; the sections are %s", brackets(sections(known)))
	}
	return fmt.Sprintf("there is no such key here; there are %s", strings.Join(here, ", "))
}

func unknownSection(known []string, name string) string {
	all := sections(known)
	if near, ok := nearest(all, name); ok {
		return fmt.Sprintf("there is no such section; the nearest is [%s]", near)
	}
	return fmt.Sprintf("there is no such section; there are %s", brackets(all))
}

func brackets(names []string) string { return "[" + strings.Join(names, "], [") + "]" }

// sections lists the sections of the known keys, each once.
func sections(known []string) []string {
	var all []string
	for _, k := range known {
		if s, _ := split(k); s != "" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// split cuts a key into its section, "" at the top, and its name.
func split(key string) (section, name string) {
	i := strings.LastIndexByte(key, '.')
	return key[:max(i, 0)], key[i+1:]
}

func dotted(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

// nearest returns the name with the fewest edits, if these are no more than a
// third of what was written, or one holds the other.
func nearest(names []string, written string) (string, bool) {
	best, least := "", len(written)+1
	for _, n := range names {
		edits := distance(strings.ToLower(written), n)
		if len(written) > 2 && (strings.Contains(n, written) || strings.Contains(written, n)) {
			edits = min(edits, 1)
		}
		if edits < least {
			best, least = n, edits
		}
	}
	return best, best != "" && least <= max(1, len(written)/3)
}

// distance is the Levenshtein distance of two names, in bytes. What a person
// writes as a key may be long: past 64 bytes it is like nothing.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

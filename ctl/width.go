package main

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// displayWidth returns how many columns of a terminal text takes: two for the
// wide letters of East Asia and most emoji, none for marks that combine with the
// letter before.
func displayWidth(text string) int {
	n := 0
	for _, r := range text {
		n += runeWidth(r)
	}
	return n
}

// runeWidth returns 0, 1 or 2. Hangul vowels and finals that stand apart, as some
// systems write file names, join the syllable before them.
//
// Source: Unicode Standard Annex 11 (East Asian Width), and wcwidth(3) of glibc
// for conjoining Hangul.
func runeWidth(r rune) int {
	switch {
	case r < 0x300: // no mark and nothing wide is below
		return 1
	case r >= 0x1160 && r <= 0x11ff, r >= 0xd7b0 && r <= 0xd7fb, unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cut shortens text to that many columns, the last of which is an ellipsis.
func cut(text string, columns int) string {
	if displayWidth(text) <= columns {
		return text
	}
	var b strings.Builder
	used := 1 // the ellipsis
	for _, r := range text {
		if used += runeWidth(r); used > columns {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ") + "…"
}

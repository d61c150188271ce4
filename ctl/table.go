package main

import (
	"slices"
	"strings"
	"unicode"
)

// gap is what separates two columns.
const gap = "  "

// How narrow a column of free text may become to fit the terminal: first before
// other columns are left out for it, then after.
const (
	freeWidthGood = 24
	freeWidthMin  = 12
)

// table is aligned text under titles. Where a row is wider than the terminal,
// columns of free text are cut, and columns that can be done without are left
// out. IDs, states and numbers are never cut, since an ID cut short is of no use.
// Without a terminal everything is there.
type table struct {
	titles []string
	right  map[int]bool // columns of numbers
	free   map[int]bool // columns of free text
	less   []int        // columns that can be done without, the first to go first
	rows   [][]cell
}

// cell is one field of a row.
type cell struct {
	text  string
	style style
}

func newTable(titles ...string) *table {
	return &table{titles: titles, right: map[int]bool{}, free: map[int]bool{}}
}

// alignRight marks columns as numbers, by title.
func (t *table) alignRight(titles ...string) *table { return t.mark(t.right, titles) }

// mayCut marks columns as free text, by title.
func (t *table) mayCut(titles ...string) *table { return t.mark(t.free, titles) }

// mayDrop marks columns that can be done without, by title, the first to go first.
func (t *table) mayDrop(titles ...string) *table {
	for _, title := range titles {
		t.less = append(t.less, slices.Index(t.titles, title))
	}
	return t
}

func (t *table) mark(columns map[int]bool, titles []string) *table {
	for i, title := range t.titles {
		for _, want := range titles {
			if title == want {
				columns[i] = true
			}
		}
	}
	return t
}

// add appends a row; an empty cell is shown as "-", but for the last.
func (t *table) add(cells ...string) {
	row := make([]cell, len(t.titles))
	for i, text := range cells {
		if row[i].text = clean(text); row[i].text == "" && i < len(row)-1 {
			row[i].text = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// more appends a row that goes on with the last one: it has one cell, by title, and
// is blank but for that.
func (t *table) more(title, text string) {
	row := make([]cell, len(t.titles))
	row[slices.Index(t.titles, title)].text = clean(text)
	t.rows = append(t.rows, row)
}

// style sets a cell of the last row off, by title.
func (t *table) style(title string, s style) {
	for i := range t.titles {
		if t.titles[i] == title {
			t.rows[len(t.rows)-1][i].style = s
		}
	}
}

// printTable prints a table as it fits stdout.
func (a *app) printTable(t *table) error { return a.printf("%s", t.render(a.width, a.colours())) }

// render returns the lines for a terminal of that many columns; 0 cuts nothing.
func (t *table) render(columns int, colours bool) string {
	head := make([]cell, len(t.titles))
	for i, title := range t.titles {
		head[i] = cell{text: title, style: bold}
	}
	lines := append([][]cell{head}, t.rows...)
	widths := t.widths(lines, columns)
	var b strings.Builder
	for _, row := range lines {
		b.WriteString(t.line(row, widths, colours))
		b.WriteByte('\n')
	}
	return b.String()
}

// widths returns each column's; below 0 it is left out.
func (t *table) widths(lines [][]cell, columns int) []int {
	widths := make([]int, len(t.titles))
	for _, row := range lines {
		for i, c := range row {
			widths[i] = max(widths[i], displayWidth(c.text))
		}
	}
	if columns <= 0 || t.narrow(widths, columns, freeWidthGood) {
		return widths
	}
	for _, i := range t.less {
		widths[i] = -1
		if t.narrow(widths, columns, freeWidthGood) {
			return widths
		}
	}
	t.narrow(widths, columns, freeWidthMin)
	return widths
}

// narrow makes the widest columns of free text narrower, to least at the most,
// until a row fits, and reports whether it does.
func (t *table) narrow(widths []int, columns, least int) bool {
	total := -len(gap)
	for _, w := range widths {
		if w >= 0 {
			total += w + len(gap)
		}
	}
	for ; total > columns; total-- {
		widest := -1
		for i, w := range widths {
			if t.free[i] && w > max(least, displayWidth(t.titles[i])) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		widths[widest]--
	}
	return true
}

// line returns one row. The last cell has no blanks behind it.
func (t *table) line(row []cell, widths []int, colours bool) string {
	last := len(row) - 1
	for last > 0 && (row[last].text == "" || widths[last] < 0) {
		last--
	}
	var b strings.Builder
	for i, c := range row[:last+1] {
		if widths[i] < 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(gap)
		}
		text := c.text
		if t.free[i] {
			text = cut(text, widths[i])
		}
		pad := strings.Repeat(" ", max(0, widths[i]-displayWidth(text)))
		switch {
		case t.right[i]:
			b.WriteString(pad + paint(colours, c.style, text))
		case i == last:
			b.WriteString(paint(colours, c.style, text))
		default:
			b.WriteString(paint(colours, c.style, text) + pad)
		}
	}
	return b.String()
}

// clean makes text from elsewhere safe for a terminal and for one line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '?'
	}, s)
}

package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/ledger"
)

// arguments collects the bound values of one statement.
type arguments struct{ values []any }

// add binds a value and returns its placeholder.
func (a *arguments) add(v any) string {
	a.values = append(a.values, v)
	return "?" + strconv.Itoa(len(a.values))
}

// addJSON binds a value as JSON and returns the expression for it.
func (a *arguments) addJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return "json(" + a.add(string(text)) + ")", nil
}

func tableOf(c ledger.Collection) (string, error) {
	if !slices.Contains(ledger.Collections, c) {
		return "", fmt.Errorf("%q is no collection of the ledger", c)
	}
	return `"` + string(c) + `"`, nil
}

// fieldPattern is what a path may be: it becomes part of the statement's text,
// since only a literal path can use an index.
var fieldPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*$`)

// pathOf returns a field's path as an SQL literal: '$."owner"."session"'.
func pathOf(field string) (string, error) {
	if !fieldPattern.MatchString(field) {
		return "", fmt.Errorf("%q is no path of a field", field)
	}
	return `'$."` + strings.ReplaceAll(field, ".", `"."`) + `"'`, nil
}

// columnOf returns the expressions of a field's value and of its JSON type.
// Indexes and conditions share them: SQLite takes an index only for the very
// same text.
func columnOf(field string) (value, kind string, err error) {
	if field == "id" {
		return "id", "'text'", nil
	}
	path, err := pathOf(field)
	if err != nil {
		return "", "", err
	}
	return "json_extract(doc, " + path + ")", "json_type(doc, " + path + ")", nil
}

// whereSQL translates conditions; none at all is always true.
func whereSQL(when []ledger.Cond, args *arguments) (string, error) {
	terms := []string{"1"}
	for _, cond := range when {
		term, err := condSQL(cond, args)
		if err != nil {
			return "", fmt.Errorf("condition on %q: %w", cond.Field, err)
		}
		terms = append(terms, term)
	}
	return strings.Join(terms, " AND "), nil
}

// condSQL translates one condition. json_extract alone takes true for 1 and a
// nested object for its text, so the JSON type is compared as well.
func condSQL(cond ledger.Cond, args *arguments) (string, error) {
	field, kind, err := columnOf(cond.Field)
	if err != nil {
		return "", err
	}
	switch cond.Op {
	case ledger.Eq:
		if b, ok := cond.Value.(bool); ok {
			return fmt.Sprintf("%s = '%t'", kind, b), nil
		}
		if cond.Value == nil {
			return field + " IS NULL", nil
		}
		return compareSQL(field, kind, "=", cond.Value, args)
	case ledger.Lt:
		return compareSQL(field, kind, "<", cond.Value, args)
	case ledger.Lte:
		return compareSQL(field, kind, "<=", cond.Value, args)
	case ledger.Gt:
		return compareSQL(field, kind, ">", cond.Value, args)
	case ledger.In:
		values, ok := cond.Value.([]string)
		if !ok {
			return "", fmt.Errorf("%T is no []string", cond.Value)
		}
		marks := make([]string, len(values))
		for i, v := range values {
			marks[i] = args.add(v)
		}
		return fmt.Sprintf("(%s IN (%s) AND %s = 'text')", field, strings.Join(marks, ", "), kind), nil
	}
	return "", fmt.Errorf("unknown comparison %q", cond.Op)
}

func compareSQL(field, kind, op string, value any, args *arguments) (string, error) {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("(%s %s %s AND %s = 'text')", field, op, args.add(v), kind), nil
	case int:
		value = int64(v)
	case int64:
	default:
		return "", fmt.Errorf("values of type %T cannot be compared with %s", value, op)
	}
	return fmt.Sprintf("(%s %s %s AND %s IN ('integer', 'real'))", field, op, args.add(value), kind), nil
}

// changeSQL returns the expression of the document after the update. SQLite
// ignores a change below a parent that is no object and counts from any text;
// guards turn these into an error instead (see isMalformed).
func changeSQL(u ledger.Update, args *arguments) (string, error) {
	if err := checkPaths(u); err != nil {
		return "", err
	}
	var changes, guards []string
	guard := func(path string, kinds ...string) {
		guards = append(guards, fmt.Sprintf("coalesce(json_type(doc, %s), 'absent') IN ('absent', '%s')", path, strings.Join(kinds, "', '")))
	}
	change := func(field, suffix string, value func(path string) string) error {
		path, err := pathOf(field)
		if err != nil {
			return err
		}
		for i := range field {
			if field[i] == '.' {
				parent, _ := pathOf(field[:i]) // a prefix of a valid path is valid
				guard(parent, "object")
			}
		}
		changes = append(changes, strings.TrimSuffix(path, "'")+suffix+"', "+value(path))
		return nil
	}
	for _, field := range slices.Sorted(maps.Keys(u.Set)) {
		value, err := args.addJSON(u.Set[field])
		if err == nil {
			err = change(field, "", func(string) string { return value })
		}
		if err != nil {
			return "", fmt.Errorf("set %q: %w", field, err)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(u.Inc)) {
		err := change(field, "", func(path string) string {
			guard(path, "integer", "real")
			return fmt.Sprintf("coalesce(json_extract(doc, %s), 0) + %s", path, args.add(u.Inc[field]))
		})
		if err != nil {
			return "", fmt.Errorf("inc: %w", err)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(u.Push)) {
		value, err := args.addJSON(u.Push[field])
		if err == nil {
			err = change(field, "[#]", func(path string) string { guard(path, "array"); return value })
		}
		if err != nil {
			return "", fmt.Errorf("push to %q: %w", field, err)
		}
	}
	after := "json_set(doc, " + strings.Join(changes, ", ") + ")"
	if len(guards) == 0 {
		return after, nil
	}
	return fmt.Sprintf("CASE WHEN %s THEN %s ELSE json('') END", strings.Join(guards, " AND "), after), nil
}

// checkPaths refuses an update of nothing, of the identity, and of two paths of
// which one holds the other: their order would decide the result.
func checkPaths(u ledger.Update) error {
	paths := slices.Concat(slices.Collect(maps.Keys(u.Set)), slices.Collect(maps.Keys(u.Inc)), slices.Collect(maps.Keys(u.Push)))
	if len(paths) == 0 {
		return errors.New("it changes nothing")
	}
	slices.Sort(paths)
	for i, p := range paths {
		if p == "id" || strings.HasPrefix(p, "id.") {
			return errors.New("a document's id never changes")
		}
		for _, q := range paths[i+1:] {
			if q == p || strings.HasPrefix(q, p+".") {
				return fmt.Errorf("it changes both %q and %q", p, q)
			}
		}
	}
	return nil
}

// findSQL translates a query.
func findSQL(table string, q ledger.Query, args *arguments) (string, error) {
	doc := "doc"
	if len(q.Without) > 0 {
		doc = "json_remove(doc"
		for _, field := range q.Without {
			path, err := pathOf(field)
			if err != nil || strings.Contains(field, ".") || field == "id" {
				return "", fmt.Errorf("%q cannot be left out: want a top-level field other than id", field)
			}
			doc += ", " + path
		}
		doc += ")"
	}
	where, err := whereSQL(q.When, args)
	if err != nil {
		return "", err
	}
	query := "SELECT " + doc + " FROM " + table + " WHERE " + where
	if q.Sort != "" {
		column, _, err := columnOf(q.Sort)
		if err != nil {
			return "", fmt.Errorf("sort: %w", err)
		}
		direction := " ASC"
		if q.Desc {
			direction = " DESC"
		}
		query += " ORDER BY " + column + direction + ", id" + direction
	}
	if q.Limit > 0 {
		query += " LIMIT " + args.add(int64(q.Limit))
	}
	return query, nil
}

package mongodb

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gpuqd/daemon/ledger"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// fieldPattern is what a path may be: names only, so neither an operator nor an
// array's index.
var fieldPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*$`)

// pathOf returns a field's path as the server knows it.
func pathOf(field string) (string, error) {
	switch {
	case field == "id":
		return "_id", nil
	case !fieldPattern.MatchString(field):
		return "", fmt.Errorf("%q is no path of a field", field)
	}
	return field, nil
}

// filterOf translates conditions, all of which must hold. They stand in one
// $and, since a plain document has no room for two on one field.
func filterOf(when []ledger.Cond) (bson.D, error) {
	if len(when) == 0 {
		return bson.D{}, nil
	}
	terms := make(bson.A, len(when))
	for i, cond := range when {
		term, err := condOf(cond)
		if err != nil {
			return nil, fmt.Errorf("condition on %q: %w", cond.Field, err)
		}
		terms[i] = term
	}
	return bson.D{{Key: "$and", Value: terms}}, nil
}

// condOf translates one condition. The server compares like with like: a number
// is never less than a text, and null is less than neither.
func condOf(cond ledger.Cond) (bson.D, error) {
	path, err := pathOf(cond.Field)
	if err != nil {
		return nil, err
	}
	value := cond.Value
	switch cond.Op {
	case ledger.Eq:
		switch value.(type) {
		case nil, bool, string, int, int64:
		default:
			return nil, fmt.Errorf("values of type %T cannot be compared", value)
		}
	case ledger.Lt, ledger.Lte, ledger.Gt:
		switch value.(type) {
		case string, int, int64:
		default:
			return nil, fmt.Errorf("values of type %T have no order", value)
		}
	case ledger.In:
		values, ok := value.([]string)
		if !ok {
			return nil, fmt.Errorf("%T is no []string", value)
		}
		value = append([]string{}, values...) // nil would be BSON's null
	default:
		return nil, fmt.Errorf("unknown comparison %q", cond.Op)
	}
	if n, ok := value.(int); ok {
		value = int64(n)
	}
	return bson.D{{Key: path, Value: bson.D{{Key: "$" + string(cond.Op), Value: value}}}}, nil
}

// changeOf translates an update.
func changeOf(u ledger.Update) (bson.D, error) {
	if err := checkPaths(u); err != nil {
		return nil, err
	}
	var set, inc, push bson.D
	for _, field := range slices.Sorted(maps.Keys(u.Set)) {
		value, err := valueToBSON(u.Set[field])
		if err != nil {
			return nil, fmt.Errorf("set %q: %w", field, err)
		}
		set = append(set, bson.E{Key: field, Value: value})
	}
	for _, field := range slices.Sorted(maps.Keys(u.Inc)) {
		inc = append(inc, bson.E{Key: field, Value: u.Inc[field]})
	}
	for _, field := range slices.Sorted(maps.Keys(u.Push)) {
		value, err := valueToBSON(u.Push[field])
		if err != nil {
			return nil, fmt.Errorf("push to %q: %w", field, err)
		}
		push = append(push, bson.E{Key: field, Value: value})
	}
	var change bson.D
	for _, op := range []bson.E{{Key: "$set", Value: set}, {Key: "$inc", Value: inc}, {Key: "$push", Value: push}} {
		if len(op.Value.(bson.D)) > 0 {
			change = append(change, op)
		}
	}
	return change, nil
}

// checkPaths refuses an update of nothing, of the identity, and of two paths of
// which one holds the other.
func checkPaths(u ledger.Update) error {
	paths := slices.Concat(slices.Collect(maps.Keys(u.Set)), slices.Collect(maps.Keys(u.Inc)), slices.Collect(maps.Keys(u.Push)))
	if len(paths) == 0 {
		return errors.New("it changes nothing")
	}
	slices.Sort(paths)
	for i, p := range paths {
		if p == "id" || p == "_id" || !fieldPattern.MatchString(p) {
			return fmt.Errorf("%q is no path of a field that can change", p)
		}
		for _, q := range paths[i+1:] {
			if q == p || strings.HasPrefix(q, p+".") {
				return fmt.Errorf("it changes both %q and %q", p, q)
			}
		}
	}
	return nil
}

// findOptions translates what a query says beside its conditions.
func findOptions(q ledger.Query) (*options.FindOptionsBuilder, error) {
	opts := options.Find()
	if q.Sort != "" {
		path, err := pathOf(q.Sort)
		if err != nil {
			return nil, fmt.Errorf("sort: %w", err)
		}
		direction := int32(1)
		if q.Desc {
			direction = -1
		}
		order := bson.D{{Key: path, Value: direction}}
		if path != "_id" {
			order = append(order, bson.E{Key: "_id", Value: direction})
		}
		opts.SetSort(order)
	}
	if q.Limit > 0 {
		opts.SetLimit(int64(q.Limit))
	}
	if len(q.Without) > 0 {
		var without bson.D
		for _, field := range q.Without {
			if !fieldPattern.MatchString(field) || strings.Contains(field, ".") || field == "id" {
				return nil, fmt.Errorf("%q cannot be left out: want a top-level field other than id", field)
			}
			without = append(without, bson.E{Key: field, Value: int32(0)})
		}
		opts.SetProjection(without)
	}
	return opts, nil
}

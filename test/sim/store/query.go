package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/ledger"
)

// query is a checked ledger.Query.
type query struct {
	when    []condition
	sort    path
	sorted  bool
	desc    bool
	limit   int
	without []string
}

func queryOf(q ledger.Query) (query, error) {
	when, err := conditionsOf(q.When)
	if err != nil {
		return query{}, err
	}
	out := query{when: when, desc: q.Desc, limit: q.Limit, without: q.Without}
	if q.Sort != "" {
		if out.sort, err = pathOf(q.Sort); err != nil {
			return query{}, fmt.Errorf("sort: %w", err)
		}
		out.sorted = true
	}
	for _, field := range q.Without {
		if p, err := pathOf(field); err != nil || p.rest != nil || field == "id" {
			return query{}, fmt.Errorf("%q cannot be left out: want a top-level field other than id", field)
		}
	}
	return out, nil
}

// hit is a document that meets a query.
type hit struct {
	id    string
	state *state
	key   []byte // what it is sorted by
}

// view appends the states of a document that a search comes across.
type view func(*document, []*state) []*state

// seeNow is the view of a search at one instant.
func seeNow(d *document, list []*state) []*state { return append(list, d.now) }

// run answers a query.
func (c *collection) run(q query, see view) []json.RawMessage {
	var hits []hit
	var room [2]*state
	for _, d := range c.order {
		for _, s := range see(d, room[:0]) {
			if !matches(s, q.when) {
				continue
			}
			h := hit{id: d.id, state: s}
			if q.sorted {
				h.key = q.sort.of(s)
			}
			hits = append(hits, h)
		}
	}
	if q.sorted {
		slices.SortStableFunc(hits, q.compare)
	}
	if q.limit > 0 && len(hits) > q.limit {
		hits = hits[:q.limit]
	}
	docs := make([]json.RawMessage, len(hits))
	for i, h := range hits {
		docs[i] = h.state.without(q.without)
	}
	return docs
}

// compare puts documents in order, those that sort alike by their IDs.
func (q *query) compare(a, b hit) int {
	order := compareValues(a.key, b.key)
	if order == 0 {
		order = strings.Compare(a.id, b.id)
	}
	if q.desc {
		return -order
	}
	return order
}

// compareValues puts what is absent or null first, then numbers, then text, as
// both real stores do; what else there is comes last.
func compareValues(a, b []byte) int {
	ka, kb := max(kindOf(a), kindNull), max(kindOf(b), kindNull)
	if ka == kindBool {
		ka = kindArray
	}
	if kb == kindBool {
		kb = kindArray
	}
	if ka != kb {
		return cmp.Compare(ka, kb)
	}
	switch ka {
	case kindNumber:
		return compareNumbers(a, b)
	case kindText:
		return compareText(a, unquote(b))
	}
	return 0
}

func compareNumbers(a, b []byte) int {
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return compareNumber(a, n)
	}
	if n, err := strconv.ParseInt(string(a), 10, 64); err == nil {
		return -compareNumber(b, n)
	}
	x, _ := strconv.ParseFloat(string(a), 64) // out of range is an infinity
	y, _ := strconv.ParseFloat(string(b), 64)
	return cmp.Compare(x, y)
}

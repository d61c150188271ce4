package ledger

import (
	"context"
	"fmt"
)

// DeadLetterRows returns the newest dead letters first, without their bodies:
// those of a user, or of everybody where that is "".
func (l *Ledger) DeadLetterRows(ctx context.Context, user string, limit int) ([]*DeadLetter, error) {
	q := Query{Sort: "at", Desc: true, Limit: limit, Without: []string{"body"}}
	if user != "" {
		q.When = append(q.When, Cond{"user", Eq, user})
	}
	docs, err := l.store.Find(ctx, DeadLetters, q)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return decodeAll[DeadLetter](docs)
}

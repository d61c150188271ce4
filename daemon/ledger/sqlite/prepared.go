package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// preparedMost bounds the statements that a pool keeps. The ledger's operations
// have some fifty different texts; lists of states or hosts add a few.
const preparedMost = 256

// pool is connections with the statements that were prepared on them: parsing
// and planning one takes longer than running it.
type pool struct {
	*sql.DB
	mu       sync.Mutex
	prepared map[string]*sql.Stmt // by text; nil once closed
}

func newPool(db *sql.DB) *pool { return &pool{DB: db, prepared: make(map[string]*sql.Stmt)} }

// query runs a statement, prepared where there is room to keep it.
func (p *pool) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	stmt, err := p.statement(ctx, text)
	if err != nil {
		return nil, err
	}
	if stmt == nil {
		return p.QueryContext(ctx, text, args...)
	}
	return stmt.QueryContext(ctx, args...)
}

// statement returns the prepared statement with that text, nil for none. Two
// callers may prepare the same one: the second is closed again.
func (p *pool) statement(ctx context.Context, text string) (*sql.Stmt, error) {
	p.mu.Lock()
	stmt, room := p.prepared[text], len(p.prepared) < preparedMost && p.prepared != nil
	p.mu.Unlock()
	if stmt != nil || !room {
		return stmt, nil
	}
	fresh, err := p.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	stmt = p.prepared[text]
	keep := stmt == nil && p.prepared != nil
	if keep {
		p.prepared[text], stmt = fresh, fresh
	}
	p.mu.Unlock()
	if !keep {
		err = fresh.Close()
	}
	return stmt, err
}

// Close closes the statements and the connections.
func (p *pool) Close() error {
	p.mu.Lock()
	prepared := p.prepared
	p.prepared = nil
	p.mu.Unlock()
	var errs []error
	for _, stmt := range prepared {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, p.DB.Close())...)
}

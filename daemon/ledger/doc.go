// Package ledger is the authority on jobs, hosts and sessions: one document per
// job, and every change of state a compare-and-set on that one document.
//
// Ledger holds the protocol: which change is legal, under which conditions, and
// what it writes. Store is the narrow contract with a database; package sqlite
// and package mongodb implement it, and ledgertest is the suite for both. No
// rule of the protocol stands in a store, so the two kinds cannot disagree.
//
// # Unknown outcomes
//
// A write that returned another error than ErrNoMatch, ErrExists or ErrNotFound
// may have been applied. Every write therefore carries an identity of its own
// (claim ID, commit ID, kill ID, hold ID, drain ID, renewal number), and the
// methods read back by it before they answer. An error that is left says that the
// ledger was out of reach for the read, too: the caller must assume neither
// outcome.
package ledger

package ledgertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// callStart stands for "now" in documents: tests decide nothing by the clock.
var callStart = time.Date(2026, 11, 22, 14, 0, 0, 123456000, time.UTC)

const (
	racers     = 32
	raceRounds = 6
)

// race runs f in n goroutines at once and returns their errors.
func race(n int, f func(i int) error) []error {
	var (
		wg    sync.WaitGroup
		start = make(chan struct{})
		errs  = make([]error, n)
	)
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// wins counts the calls without error; any other error than lost fails the test.
func wins(t testing.TB, errs []error, lost error) int {
	t.Helper()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, lost):
			t.Fatalf("a racer got %v, want %v or none", err, lost)
		}
	}
	return won
}

func raceClaims(t *testing.T, open Open, store ledger.Store) {
	ctx := testContext(t)
	stores := []ledger.Store{store, open(t)} // two handles race like two daemons
	t.Run("OneCompareAndSetWins", func(t *testing.T) {
		for range raceRounds {
			id := put(t, store, `"winner": null, "wins": 0`)
			errs := race(racers, func(i int) error { return grab(ctx, stores[i%2], id, fmt.Sprint(i)) })
			if won := wins(t, errs, ledger.ErrNoMatch); won != 1 {
				t.Fatalf("%d of %d won", won, racers)
			}
			for i, err := range errs {
				if err == nil {
					wantStored(t, store, id, fmt.Sprintf(`"winner": "%d", "wins": 1`, i))
				}
			}
		}
	})
	t.Run("OneInsertWins", func(t *testing.T) {
		for range raceRounds {
			id := uuid.NewString()
			errs := race(racers, func(i int) error {
				return stores[i%2].Insert(ctx, ledger.Scratch, id, document(id, fmt.Sprintf(`"n": %d`, i)))
			})
			if won := wins(t, errs, ledger.ErrExists); won != 1 {
				t.Fatalf("%d of %d won", won, racers)
			}
		}
	})
	t.Run("EveryIncCounts", func(t *testing.T) {
		const each = 10
		id := put(t, store, `"n": 0, "h": []`)
		errs := race(racers, func(i int) error {
			for range each {
				_, err := stores[i%2].Update(ctx, ledger.Scratch, id, nil, ledger.Update{Inc: map[string]int64{"n": 1}, Push: map[string]any{"h": i}})
				if err != nil {
					return err
				}
			}
			return nil
		})
		wins(t, errs, nil)
		doc, err := store.Get(ctx, ledger.Scratch, id)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			N int
			H []int
		}
		if err := json.Unmarshal(doc, &got); err != nil {
			t.Fatal(err)
		}
		if got.N != racers*each || len(got.H) != racers*each {
			t.Errorf("counted %d and pushed %d, want %d", got.N, len(got.H), racers*each)
		}
	})
}

// grab is the compare-and-set that only one racer may win.
func grab(ctx context.Context, store ledger.Store, id, who string) error {
	_, err := store.Update(ctx, ledger.Scratch, id, []ledger.Cond{{Field: "winner", Op: ledger.Eq, Value: nil}},
		ledger.Update{Set: map[string]any{"winner": who}, Inc: map[string]int64{"wins": 1}})
	return err
}

func handleClaims(t *testing.T, open Open, store ledger.Store) {
	ctx := testContext(t)
	t.Run("ReadSeesEveryEarlierWrite", func(t *testing.T) {
		other := open(t)
		id := put(t, store, `"n": 0`)
		for n := 1; n <= 50; n++ {
			writer, reader := store, other
			if n%2 == 0 {
				writer, reader = other, store
			}
			if _, err := writer.Update(ctx, ledger.Scratch, id, nil, ledger.Update{Inc: map[string]int64{"n": 1}}); err != nil {
				t.Fatal(err)
			}
			wantStored(t, writer, id, fmt.Sprintf(`"n": %d`, n))
			wantStored(t, reader, id, fmt.Sprintf(`"n": %d`, n))
		}
	})
	t.Run("CancelledCallFailsAndTheNextWorks", func(t *testing.T) {
		id := put(t, store, `"n": 0`)
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		_, err := store.Get(cancelled, ledger.Scratch, id)
		wantPlainError(t, err)
		_, err = store.Update(cancelled, ledger.Scratch, id, nil, ledger.Update{Inc: map[string]int64{"n": 1}})
		wantPlainError(t, err)
		wantStored(t, store, id, `"n": 0`)
	})
	t.Run("ClosedHandleFailsAndOthersWork", func(t *testing.T) {
		closed := open(t)
		id := put(t, closed, `"n": 0`)
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := closed.Get(ctx, ledger.Scratch, id)
		wantPlainError(t, err)
		wantStored(t, store, id, `"n": 0`)
	})
}

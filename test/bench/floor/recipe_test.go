package floor

import (
	"maps"
	"testing"
)

func TestRecipeIsWhatWasSeenRounded(t *testing.T) {
	got := RecipeOf(Operations{Depth: 2.2, LedgerGet: 0.02, JournalSync: 5.98, Get: 1}, 3)
	if want := (Recipe{Depths: 2, LedgerGets: 0, JournalSyncs: 6, ShimSyncs: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := RecipeOf(Operations{JournalSync: 40}, 0).JournalSyncs; got != journalSyncsMax {
		t.Errorf("got %d syncs, and there are places for %d", got, journalSyncsMax)
	}
}

func TestOperationsAddUp(t *testing.T) {
	before, after := Operations{Get: 10}, Operations{Get: 30, Ack: 4}
	if got := after.Since(before).Over(4); !maps.Equal(got, Operations{Get: 5, Ack: 1}) {
		t.Errorf("got %v", got)
	}
}

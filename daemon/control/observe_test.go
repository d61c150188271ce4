package control

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// Every request is told of with names of a closed list, whatever clients send.
func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var told []string
	s := NewServer(newRecorder(), Options{Observe: func(verb, code string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if took < 0 {
			t.Errorf("%s took %s", verb, took)
		}
		told = append(told, verb+" "+code)
	}})
	for _, body := range []string{
		`{"schema":1,"verb":"hosts"}`,
		`{"schema":1,"verb":"list","args":{"limit":-1}}`,
		`{"schema":1,"verb":"drop_all_tables"}`,
		`{"schema":7,"verb":"hosts"}`,
	} {
		s.ServeDelivery(t.Context(), "alice", []byte(body))
	}
	if want := []string{"hosts ok", "list bad_request", "unknown bad_request", "hosts bad_request"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if !slices.Contains(Verbs(), VerbSubmit) || !slices.IsSorted(Verbs()) {
		t.Errorf("verbs are %q", Verbs())
	}
}

package agent

import (
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/control"
)

func TestEventsAreShownToWhomTheyConcern(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	own, others := string(b.submitAs(t, "ada").ID), string(b.submitAs(t, "bob").ID)
	letter := "0a0a0a0a"
	var times []time.Time
	for _, e := range [][3]string{
		{"kill", "olga", own},
		{"hold", "bob", others},
		{"drain", "olga", "a"},
		{"drain", "olga", "a/GPU-1"},
		{"dead_purge", "bob", letter},
		{"dead_requeue", "ada", letter},
		{"expire_session", "gpuqd", "c"},
	} {
		b.clock.pass(time.Second)
		times = append(times, b.clock.Now())
		b.recordEvent(ctx, e[0], e[1], e[2], "why")
	}
	for name, c := range map[string]struct {
		caller control.Caller
		args   control.EventsArgs
		want   []string
		more   bool
	}{
		"Operator": {operator, control.EventsArgs{Limit: 10}, []string{
			"expire_session", "dead_requeue", "dead_purge", "drain", "drain", "hold", "kill",
		}, false},
		"User":       {ada, control.EventsArgs{Limit: 10}, []string{"expire_session", "dead_requeue", "drain", "drain", "kill"}, false},
		"UserCut":    {ada, control.EventsArgs{Limit: 2}, []string{"expire_session", "dead_requeue"}, true},
		"OfATarget":  {ada, control.EventsArgs{Limit: 10, Target: "a/GPU-1"}, []string{"drain"}, false},
		"OfOthers":   {ada, control.EventsArgs{Limit: 10, Target: others}, nil, false},
		"SinceATime": {bob, control.EventsArgs{Limit: 10}, []string{"expire_session", "dead_purge", "drain", "drain", "hold"}, false},
		"Exactly":    {operator, control.EventsArgs{Limit: 7}, []string{"expire_session", "dead_requeue", "dead_purge", "drain", "drain", "hold", "kill"}, false},
		"Cut":        {operator, control.EventsArgs{Limit: 1}, []string{"expire_session"}, true},
	} {
		if name == "SinceATime" {
			c.args.Since.Time = times[5]
			c.want = []string{"expire_session"}
		}
		reply, err := b.Events(ctx, c.caller, c.args)
		var got []string
		for _, e := range reply.Events {
			got = append(got, e.What)
		}
		if err != nil || !slices.Equal(got, c.want) || reply.More != c.more {
			t.Errorf("%s: %v, more %t, %v; want %v, %t", name, got, reply.More, err, c.want, c.more)
		}
	}
}

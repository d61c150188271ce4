package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

const (
	// completeTimeout is how long a person who pressed Tab is kept waiting.
	completeTimeout = 800 * time.Millisecond
	// completeMax is how many jobs or messages are offered, the newest.
	completeMax = 200
)

// source asks a daemon for what could stand at the cursor, where so far is there
// already. What it returns has a description after a tab, or none.
type source func(ctx context.Context, client *control.Client, sofar string) []cobra.Completion

// complete makes cobra's function of a source. Nothing that goes wrong is shown:
// the person is in the middle of a line.
func (a *app) complete(from source) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, sofar string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		a.err = io.Discard
		client, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		client.AttemptTimeout = completeTimeout
		found := make(chan []cobra.Completion, 1)
		go func() { found <- from(ctx, client, sofar) }()
		select {
		case list := <-found:
			list = slices.DeleteFunc(list, func(c cobra.Completion) bool {
				word, _, _ := strings.Cut(c, "\t")
				return !strings.HasPrefix(word, sofar) || slices.Contains(args, word)
			})
			if len(list) == 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		case <-ctx.Done():
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// completeOne is complete for a verb with one argument.
func (a *app) completeOne(from source) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, sofar string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.complete(from)(cmd, args, sofar)
	}
}

// fixed completes one of a few words.
func fixed(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// listOf completes the last of several words with commas between.
func listOf(words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, sofar string) ([]cobra.Completion, cobra.ShellCompDirective) {
		before := sofar[:strings.LastIndexByte(sofar, ',')+1]
		var list []cobra.Completion
		for _, w := range words {
			if !slices.Contains(strings.Split(before, ","), w) {
				list = append(list, before+w)
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// described is a completion with its description.
func described(word, format string, args ...any) cobra.Completion {
	return cobra.CompletionWithDesc(word, clean(strings.TrimSpace(fmt.Sprintf(format, args...))))
}

func notOver(s job.State) bool { return !s.Terminal() }

func holdable(s job.State) bool { return s == job.Queued || s == job.Retrying }

// jobIDs offers jobs in the states that suit; nil: in all.
func jobIDs(suits func(job.State) bool) source {
	var states []job.State
	if suits != nil {
		states = slices.DeleteFunc(slices.Clone(job.States), func(s job.State) bool { return !suits(s) })
	}
	return func(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
		reply, err := client.List(ctx, control.ListArgs{States: states, Limit: completeMax})
		if err != nil {
			return nil
		}
		var list []cobra.Completion
		for _, j := range reply.Jobs {
			list = append(list, described(string(j.ID), "%s %s %s", stateText(j), j.Submitter, j.Name))
		}
		return list
	}
}

// submitters offers the users whose jobs are the newest.
func submitters(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
	reply, err := client.List(ctx, control.ListArgs{Limit: completeMax})
	if err != nil {
		return nil
	}
	var list []cobra.Completion
	for _, j := range reply.Jobs {
		list = append(list, j.Submitter)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func hostNames(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
	reply, err := client.Hosts(ctx)
	if err != nil {
		return nil
	}
	var list []cobra.Completion
	for _, h := range reply.Hosts {
		list = append(list, hostWord(h))
	}
	return list
}

func hostWord(h control.HostRow) cobra.Completion {
	switch {
	case h.Drained != nil:
		return described(h.Name, "drained: %s", h.Drained.Reason)
	case !h.Live:
		return described(h.Name, "%s", h.State)
	}
	return described(h.Name, "%d of %d devices free", h.DevicesFree, h.DevicesTotal)
}

// pools offers the pools that hosts serve.
func pools(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
	reply, err := client.Hosts(ctx)
	if err != nil {
		return nil
	}
	var list []cobra.Completion
	for _, h := range reply.Hosts {
		list = append(list, h.Pools...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// models offers the models of the devices there are, as words that --gpu-model takes.
func models(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
	reply, err := client.Devices(ctx, control.DevicesArgs{})
	if err != nil {
		return nil
	}
	var list []cobra.Completion
	for _, d := range reply.Devices {
		if words := strings.TrimPrefix(strings.Join(job.Words(d.Model), "-"), "nvidia-"); words != "" {
			list = append(list, described(words, "%s, %s", d.Model, size(d.MemoryBytes)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// drainTargets offers hosts, and the devices of one whose name is there already.
// With drained it offers only what is drained.
func drainTargets(drained bool) source {
	return func(ctx context.Context, client *control.Client, sofar string) []cobra.Completion {
		var list []cobra.Completion
		host, _, inHost := strings.Cut(sofar, "/")
		if !inHost {
			reply, err := client.Hosts(ctx)
			if err != nil {
				return nil
			}
			for _, h := range reply.Hosts {
				if !drained || h.Drained != nil {
					list = append(list, hostWord(h))
				}
			}
			if !drained {
				return list
			}
			host = ""
		}
		reply, err := client.Devices(ctx, control.DevicesArgs{Host: host})
		if err != nil {
			return list
		}
		for _, d := range reply.Devices {
			if !drained || d.Drained != nil {
				list = append(list, described(d.Host+"/"+d.UUID, "%d %s %s", d.Index, d.Model, d.State))
			}
		}
		return list
	}
}

// deadIDs offers what was set aside, of one kind; "": of both.
func deadIDs(kind string) source {
	return func(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
		reply, err := client.DeadList(ctx, control.DeadArgs{Limit: completeMax})
		if err != nil {
			return nil
		}
		var list []cobra.Completion
		for _, d := range reply.Dead {
			if kind == "" || d.Kind == kind {
				list = append(list, described(shortDeadID(d), "%s %s: %s", d.Kind, d.User, d.Reason))
			}
		}
		return list
	}
}

// eventTargets offers what events are about: the newest of them.
func eventTargets(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
	reply, err := client.Events(ctx, control.EventsArgs{Limit: completeMax})
	if err != nil {
		return nil
	}
	var list []cobra.Completion
	for _, e := range reply.Events {
		if e.Target != "" && !slices.Contains(list, e.Target) {
			list = append(list, e.Target)
		}
	}
	return list
}

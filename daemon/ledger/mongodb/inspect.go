package mongodb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"

	"go.mongodb.org/mongo-driver/v2/bson"
)

var _ ledger.Inspector = (*Store)(nil)

// Names of the checks.
const (
	checkConcern = "concerns"
	checkMembers = "members"
)

// Inspect implements ledger.Inspector.
func (s *Store) Inspect(ctx context.Context) []health.Check {
	return []health.Check{s.inspectConcerns(ctx), s.inspectMembers(ctx)}
}

// inspectConcerns tries a write and a read of the kind that the ledger makes.
func (s *Store) inspectConcerns(ctx context.Context) health.Check {
	reads := "linearizable"
	if s.local.Load() {
		reads = "local, which on a lone server is the same as linearizable"
	}
	if err := s.checkConcerns(ctx); err != nil {
		state := health.Unknown
		if errors.Is(err, ledger.ErrUnfit) {
			state = health.Fail
		}
		return health.Bad(checkConcern, state, "start the members that are down, so that a majority of those with data confirms writes, then look again", "%v", err)
	}
	return health.Good(checkConcern, "writes wait for w: majority, j: true; reads are %s; one of each went through", reads)
}

// memberStatus is the part of replSetGetStatus that is read.
type memberStatus struct {
	Set     string `bson:"set"`
	Members []struct {
		Name   string  `bson:"name"`
		Health float64 `bson:"health"`   // 1: it answers
		State  string  `bson:"stateStr"` // PRIMARY, SECONDARY, ARBITER or what ails it
	} `bson:"members"`
}

// inspectMembers asks the server what it is part of, and who of that is well.
func (s *Store) inspectMembers(ctx context.Context) health.Check {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	admin := s.client.Database("admin")
	var h hello
	if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&h); err != nil {
		return health.Bad(checkMembers, health.Unknown, "by hand: rs.status() in mongosh", "%v", err)
	}
	if h.Message == "isdbgrid" {
		return health.Good(checkMembers, "a mongos answers: its shards are replica sets of their own")
	}
	if h.lone() {
		if !s.singleNode {
			return health.Bad(checkMembers, health.Fail, "make it a replica set of three members again", "a single server answers, and the ledger would be lost with its disk")
		}
		return health.Good(checkMembers, "a single server, which single_node = true accepts: the ledger is lost with its disk, so back it up")
	}
	data := len(h.Hosts) + len(h.Passives)
	var status memberStatus
	if err := admin.RunCommand(ctx, bson.D{{Key: "replSetGetStatus", Value: 1}}).Decode(&status); err != nil {
		return health.Bad(checkMembers, health.Unknown, "give the account the role clusterMonitor, or by hand: rs.status() in mongosh",
			"replica set %s has %d members with data; the server does not tell which are well: %v", h.SetName, data, err)
	}
	return judgeMembers(status, data)
}

func judgeMembers(s memberStatus, data int) health.Check {
	var well int
	var ill []string
	for _, m := range s.Members {
		switch {
		case m.Health == 1 && (m.State == "PRIMARY" || m.State == "SECONDARY"):
			well++
		case m.Health == 1 && m.State == "ARBITER":
		default:
			ill = append(ill, m.Name+" is "+m.State)
		}
	}
	saw := fmt.Sprintf("replica set %s: %d of %d members with data are well", s.Set, well, data)
	if len(ill) > 0 {
		saw += "; " + strings.Join(ill, ", ")
	}
	switch {
	case 2*well <= data:
		return health.Bad(checkMembers, health.Fail, "start the other members: without a majority of them no write is confirmed", "%s", saw)
	case len(ill) > 0:
		return health.Bad(checkMembers, health.Warn, "start the members that are not well before another one fails", "%s", saw)
	case data < 3:
		return health.Bad(checkMembers, health.Warn, "add members until there are three with data: with two, either one's loss stops the queue", "%s", saw)
	}
	return health.Good(checkMembers, "%s", saw)
}

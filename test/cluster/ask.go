package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// ErrNoSupervisor means that no supervisor answers for the cluster.
var ErrNoSupervisor = errors.New("no cluster is up here: run make up")

// ErrSupervisorGone means that the cluster is there and its supervisor is not.
var ErrSupervisorGone = fmt.Errorf("%w, which takes over what still runs of it", ErrNoSupervisor)

// Ask sends a request to the supervisor of the cluster in dir. Progress lines go
// to tell; nil ignores them. A refusal by the supervisor is an error with its
// text.
func Ask(ctx context.Context, dir string, req Request, tell func(string)) (Reply, error) {
	files, err := newLayout(dir)
	if err != nil {
		return Reply{}, err
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", files.supervisor())
	if err != nil {
		if exists(dir) {
			return Reply{}, ErrSupervisorGone
		}
		return Reply{}, ErrNoSupervisor
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return Reply{}, fmt.Errorf("ask the supervisor: %w", err)
	}
	in := json.NewDecoder(bufio.NewReader(conn))
	for {
		var reply Reply
		if err := in.Decode(&reply); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return Reply{}, fmt.Errorf("ask the supervisor, whose log is %s: %w", files.log("supervisor"), err)
		}
		switch {
		case reply.Error != "":
			return reply, errors.New(reply.Error)
		case reply.Done:
			return reply, nil
		case tell != nil:
			tell(reply.Progress)
		}
	}
}

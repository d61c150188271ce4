// Amqp submits one job with nothing but an AMQP client, and prints its ID once a
// daemon has it. It imports nothing of gpuqd: copy it and go from there.
// docs/protocol.md, 5.2 and 5.3, is the whole protocol.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// reply is what a daemon answers: one of the two.
type reply struct {
	Data  *struct{ ID, State, Warning string }
	Error *struct{ Code, Message string }
}

// errDoubt: the job may be in the queue or not. Send it again, with its ID.
var errDoubt = errors.New("it is not known whether the job was taken in")

// directReply is the broker's name for "answer me on this channel".
const directReply = "amq.rabbitmq.reply-to"

// submit sends the job once and waits for a daemon's answer until ctx ends. Every
// error is errDoubt, but for one that is a broker's that cannot be reached.
func submit(ctx context.Context, node, user string, body []byte) (*reply, error) {
	conn, err := amqp.Dial(node)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	replies, err := ch.Consume(directReply, "", true, false, false, false, nil) // before the publish
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	returned := ch.NotifyReturn(make(chan amqp.Return, 1))
	number := uuid.NewString()
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "gpuq.submit", "", true, false, amqp.Publishing{
		UserId: user, ReplyTo: directReply, CorrelationId: number,
		DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: body,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDoubt, err)
	}
	if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
		return nil, fmt.Errorf("%w: the broker did not confirm it (%v)", errDoubt, err)
	}
	for {
		select {
		case r := <-returned:
			return nil, fmt.Errorf("%w: the broker has no queue for it (%d %s)", errDoubt, r.ReplyCode, r.ReplyText)
		case d, open := <-replies:
			if !open {
				return nil, fmt.Errorf("%w: the connection was lost", errDoubt)
			}
			r := new(reply)
			if err := json.Unmarshal(d.Body, r); err == nil && d.CorrelationId == number {
				return r, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: no daemon answered in time", errDoubt)
		}
	}
}

// settle sends the job to one node after another until a daemon has taken it or
// refused it. The ID stays the same, so however often it arrives it is one job.
func settle(ctx context.Context, nodes []string, user string, body []byte) (*reply, error) {
	for i := 0; ; i++ {
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		r, err := submit(one, nodes[i%len(nodes)], user, body)
		cancel()
		if err == nil && (r.Error == nil || r.Error.Code != "unavailable" && r.Error.Code != "unknown_outcome") {
			return r, nil
		}
		if err == nil {
			err = errors.New(r.Error.Message)
		}
		fmt.Fprintf(os.Stderr, "amqp: sending the job again: %v\n", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, errDoubt
		}
	}
}

// run submits the command and returns the exit code.
func run(nodes []string, user, password string, patience time.Duration, spec map[string]any) int {
	for i, node := range nodes {
		u, err := url.Parse(node)
		if err != nil || u.Host == "" {
			fmt.Fprintf(os.Stderr, "amqp: %q is no address: want amqp://host:port/vhost\n", node)
			return 2
		}
		u.User = url.UserPassword(user, password)
		nodes[i] = u.String()
	}
	id := uuid.NewString() // once, before the first try
	body, err := json.Marshal(map[string]any{"schema": 1, "id": id, "spec": spec})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch r, err := settle(ctx, nodes, user, body); {
	case err != nil:
		fmt.Fprintf(os.Stderr, "amqp: job %s: %v; gpuqctl show %s tells\n", id, err, id)
		return 7
	case r.Error != nil:
		fmt.Fprintf(os.Stderr, "amqp: refused: %s\n", r.Error.Message)
		return 2
	}
	fmt.Println(id)
	return 0
}

func main() {
	urls := flag.String("url", "", "amqp://host:port/vhost of every node, without user, with commas between them")
	user := flag.String("user", os.Getenv("USER"), "your account at the broker")
	passwordFile := flag.String("password-file", "", "file with its password")
	patience := flag.Duration("timeout", 5*time.Minute, "how long to try")
	gpus := flag.Int("gpus", 1, "devices of the job")
	flag.Parse()
	password, err := os.ReadFile(*passwordFile)
	if err != nil || *urls == "" || flag.NArg() == 0 {
		fmt.Fprintf(os.Stderr, "usage: amqp -url URL[,URL] -user USER -password-file FILE [-gpus N] COMMAND [ARG...] (%v)\n", err)
		os.Exit(2)
	}
	spec := map[string]any{"command": flag.Args(), "gpus": *gpus}
	os.Exit(run(strings.Split(*urls, ","), *user, strings.TrimSpace(string(password)), *patience, spec))
}

package broker

import (
	"errors"
	"testing"
)

// TestSeveredConnectionsDeliveriesComeAgain: what was held is handed out again,
// what was acked is not, and the client is as good as before.
func TestSeveredConnectionsDeliveriesComeAgain(t *testing.T) {
	c := runClient(t, configOf("host1"))
	queue := queueOf(t, c, "severed")
	publish(t, c, queue, "acked")
	publish(t, c, queue, "held")
	acked := takeOne(t, c, queue)
	if err := c.Ack(t.Context(), acked.Tag); err != nil {
		t.Fatal(err)
	}
	wantDepth(t, c, queue, 1) // the ack has reached the broker
	held := takeOne(t, c, queue)
	if c.Sever(held.Tag.Generation + 1) {
		t.Error("a connection that is not there was cut")
	}
	if !c.Sever(held.Tag.Generation) || c.Sever(held.Tag.Generation) {
		t.Error("the connection was not cut, or twice")
	}
	if err := c.Ack(t.Context(), held.Tag); !errors.Is(err, ErrStaleTag) {
		t.Errorf("an ack of what was held gave %v", err)
	}
	again := takeOne(t, c, queue)
	if again.MessageID != "held" || !again.Redelivered || again.Tag.Generation <= held.Tag.Generation {
		t.Errorf("got %q, redelivered %v, generation %d after %d; want what was held, again",
			again.MessageID, again.Redelivered, again.Tag.Generation, held.Tag.Generation)
	}
	if err := c.Ack(t.Context(), again.Tag); err != nil {
		t.Error(err)
	}
	wantDepth(t, c, queue, 0)
}

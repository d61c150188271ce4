package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// channelOf opens a bare channel of an account.
func channelOf(t *testing.T, user string) *amqp.Channel {
	t.Helper()
	d, err := newDialer(configOf(user).withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.dial(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(false) })
	ch, err := s.conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// publishFate publishes and returns how the broker closes the channel; nil when
// it confirms.
func publishFate(t *testing.T, ch *amqp.Channel, exchange, key string, p amqp.Publishing) *amqp.Error {
	t.Helper()
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	dc, err := ch.PublishWithDeferredConfirm(exchange, key, true, false, p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if acked, err := dc.WaitContext(ctx); err != nil {
		t.Fatal(err)
	} else if acked {
		return nil
	}
	return <-closed
}

func TestUserAccount(t *testing.T) {
	c := runClient(t, configOf("host1")) // declares the topology
	queue := queueOf(t, c, "forbidden")

	refused := []struct {
		name, exchange, key string
		p                   amqp.Publishing
		code                int
	}{
		{"IntoAJobQueue", "", queue, amqp.Publishing{}, amqp.AccessRefused},
		{"IntoAnotherRequestersReplies", "", "amq.rabbitmq.reply-to.x.y", amqp.Publishing{}, amqp.AccessRefused},
		{"ToBells", ExchangeBell, "", amqp.Publishing{}, amqp.AccessRefused},
		{"ToDead", ExchangeDead, "", amqp.Publishing{}, amqp.AccessRefused},
		{"ToRetry", RetryQueue(time.Second), queue, amqp.Publishing{}, amqp.AccessRefused},
		{"UnderAnothersName", ExchangeSubmit, "", amqp.Publishing{UserId: "bob"}, amqp.PreconditionFailed},
	}
	for _, c := range refused {
		t.Run("CannotPublish"+c.name, func(t *testing.T) {
			if err := publishFate(t, channelOf(t, "alice"), c.exchange, c.key, c.p); err == nil || err.Code != c.code {
				t.Errorf("got %v, want code %d", err, c.code)
			}
		})
	}
	calls := []struct {
		name string
		call func(*amqp.Channel) error
	}{
		{"GetAJob", func(ch *amqp.Channel) error { _, _, err := ch.Get(queue, true); return err }},
		{"GetSubmissions", func(ch *amqp.Channel) error { _, _, err := ch.Get(QueueSubmit, true); return err }},
		{"ConsumeControl", func(ch *amqp.Channel) error {
			_, err := ch.Consume(QueueControl, "", true, false, false, false, nil)
			return err
		}},
		{"DeclareAQueue", func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("gpuq.mine", false, true, false, false, nil)
			return err
		}},
		{"DeclareANamelessQueue", func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("", false, true, true, false, nil)
			return err
		}},
		{"DeleteAQueue", func(ch *amqp.Channel) error { _, err := ch.QueueDelete(queue, false, false, false); return err }},
		{"PurgeAQueue", func(ch *amqp.Channel) error { _, err := ch.QueuePurge(queue, false); return err }},
		{"DeclareAnExchange", func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("gpuq.mine", "fanout", false, true, false, false, nil)
		}},
		{"BindAQueue", func(ch *amqp.Channel) error { return ch.QueueBind(queue, "", ExchangeSubmit, false, nil) }},
	}
	for _, c := range calls {
		t.Run("Cannot"+c.name, func(t *testing.T) {
			if err := c.call(channelOf(t, "alice")); !hasCode(err, amqp.AccessRefused) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
	t.Run("CanPublishWithoutUserIDWhichIsSeen", func(t *testing.T) {
		if err := publishFate(t, channelOf(t, "alice"), ExchangeSubmit, "", amqp.Publishing{Body: []byte("anon")}); err != nil {
			t.Fatal(err)
		}
		d := takeOne(t, c, QueueSubmit)
		if d.UserID != "" || string(d.Body) != "anon" {
			t.Errorf("got %+v", d)
		}
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
	})
	t.Run("WrongPasswordIsSaid", func(t *testing.T) {
		cfg := configOf("alice")
		cfg.Password = "wrong"
		if _, err := DialRequester(bounded(t), cfg); !errors.Is(err, ErrDenied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("MissingExchangeIsSaid", func(t *testing.T) {
		r := requesterOf(t, "admin")
		if _, err := r.Request(bounded(t), "gpuq.none", "", nil, nil); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("RefusedRequestIsSaid", func(t *testing.T) {
		r := requesterOf(t, "alice")
		if _, err := r.Request(bounded(t), ExchangeDead, "", nil, nil); !errors.Is(err, ErrDenied) {
			t.Errorf("got %v", err)
		}
	})
}

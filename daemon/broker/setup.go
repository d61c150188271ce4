package broker

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
)

// setupLook declares the topology where it does not stand yet.
func (c *Client) setupLook(ctx context.Context, s *session) error {
	err := s.do(ctx, topologyStands)
	if hasCode(err, amqp.NotFound) {
		err = s.do(ctx, declareTopology)
	}
	return err
}

// setupPublish opens the channels for confirmed messages, requests and the rest.
func (c *Client) setupPublish(_ context.Context, s *session) error {
	confirms, err := s.openChannel("confirmed messages")
	if err != nil {
		return err
	}
	requests, err := s.openChannel("requests")
	if err != nil {
		return err
	}
	if s.loose, err = s.openChannel("bells"); err != nil {
		return err
	}
	if s.confirms, err = newConfirmer(s, confirms); err != nil {
		return err
	}
	s.requests, err = newExchanger(s, requests)
	return err
}

// setupTake opens the channel for gets and acks.
func (c *Client) setupTake(_ context.Context, s *session) error {
	gets, err := s.openChannel("gets")
	s.gets = gets
	return err
}

// setupReply opens the channel for replies.
func (c *Client) setupReply(_ context.Context, s *session) error {
	loose, err := s.openChannel("replies")
	s.loose = loose
	return err
}

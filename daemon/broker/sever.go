package broker

import "errors"

// errSevered is why a connection ended that Sever has cut.
var errSevered = errors.New("it was cut on purpose, by a rehearsal")

// Sever cuts the take connection of a generation, without a word to the broker,
// as a network does that fails: every delivery held on it is handed out again. It
// reports whether there was that connection. The client connects anew by itself.
func (c *Client) Sever(generation uint64) bool {
	s := c.take.at(generation)
	if s == nil {
		return false
	}
	s.drop(errSevered)
	return true
}

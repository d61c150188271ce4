// Package control is the operator protocol: what gpuqctl asks of a daemon, and
// how the daemon answers, over its Unix socket or through the broker.
//
// One request is one JSON object and has one JSON object as its answer; there
// is no state between two requests, so a client may send the next one another
// way, or to another daemon. On a socket each stands on a line of its own. The
// daemon implements Handler; Server listens on the socket and ServeDelivery
// answers what came through the broker; Client is the other end.
//
// To add a verb: its name, Args and Reply in api.go, a method in Handler, one
// row in the table of dispatch.go, one method in verbs.go.
package control

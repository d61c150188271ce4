// Package queue is a simulated RabbitMQ: Server is the cluster, Client is one
// daemon run's access to it, and does through agent.Broker what *broker.Client
// does. Package conformance beside it runs the same scripts against both.
//
// What the cluster does is kept as AMQP has it. A client has four connections,
// by duty. The server knows a delivery by its connection and number only, and
// numbers start at 1 on each connection. A connection has two ends, which learn
// of its loss apart from each other: a client may hold what was given to others
// long ago, and the server may wait for acks of a client that is gone. What is
// written on a connection gets lost only with the connection: one that loses
// anything is torn, carries nothing more, and both ends notice by heartbeats.
//
// A field said to belong to the instant is read and changed within
// world.World.Do only.
package queue

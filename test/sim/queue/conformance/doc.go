// Package conformance holds the simulated broker to the real one: each script
// runs against a cluster of three RabbitMQ nodes through *broker.Client, and
// against package queue in a bubble, from many seeds. Where the two differ, the
// simulation is wrong.
package conformance

// Package sim runs the real agent over simulated parts: a site of a few hosts, a
// handful of jobs, and faults, from a seed. Nothing of the agent is rewritten for
// it; what is simulated lies behind the agent's own ports (daemon/agent/ports.go)
// and below the ledger (ledger.Store):
//
//	world   time, chance, hosts, processes, wires
//	queue   RabbitMQ            store   the ledger's database
//	cache   Redis               disk    a host's journal, shims and payloads
//
// A history runs in a testing/synctest bubble, takes a few milliseconds, and is
// judged by package history. A seed makes a Plan, a plan makes a history, and a
// plan that breaks a promise is shrunk to a short one that breaks it too.
package sim

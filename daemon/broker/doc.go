// Package broker is all of RabbitMQ for gpuqd: connections, topology, submit,
// publish, take, ack, retry, bells and control requests. It knows nothing of
// the ledger, and it decides nothing: what to do with a delivery is the
// agent's matter.
//
// A Client keeps four connections, so that no duty can hold up another:
//
//	publish   publishes with confirms, requests, bells. Under a memory or disk
//	          alarm the broker stops reading it.
//	take      gets and acks jobs, and nothing else. It is closed whenever a
//	          get is not answered in time, and that costs only redeliveries.
//	look      declares, looks at depths, and consumes gpuq.submit,
//	          gpuq.control, gpuq.dead, gpuq.dlx and the bells.
//	reply     answers requests, and nothing else: the broker closes the
//	          connection over a reply-to that it cannot read (541, measured on
//	          3.10.8), and the reply-to is whatever the requester wrote.
//
// What users publish is untrusted down to its encoding: see headerGuard.
//
// The client library's own recovery stays off: it would reopen a channel under
// the same name, delivery tags would start at 1 again, and a late ack would
// remove another job. Here every loss of the take connection ends a
// generation, and a Tag is good for its own generation only.
package broker

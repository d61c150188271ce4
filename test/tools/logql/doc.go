// Package logql holds the queries of gpuqd's dashboards that go to Loki to Loki's own
// parser, and to the labels that the agents send. It is a module of its own, since the
// parser brings much of Loki with it: the dashboards' other checks (test/tools/dashboards)
// build in seconds.
package logql

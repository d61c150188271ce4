// Package monitoring holds the alerts of ansible/roles/prometheus to what they say: that
// each has its words, its page in docs/runbooks and its cases, and names metrics that
// somebody serves. Cases for promtool are in rules/, what others serve in thirdparty/.
//
// Scale makes rules that do the same within seconds, for tests with real faults.
package monitoring

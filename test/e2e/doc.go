// Package e2e holds the end-to-end tests: a whole cluster of real servers and
// three daemons, driven by the gpuqctl that users have, once with each kind of
// ledger. What ran is judged by the payloads' own files, not by what the daemons
// say of it.
package e2e

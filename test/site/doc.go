// Package site runs the playbooks of ansible/ against Debian hosts with systemd,
// from bare hosts to a site that runs jobs. `make e2e/site` runs it.
//
//	site-mq1..3   RabbitMQ, Redis with Sentinel; site-mq1 also the ledger's stand-in
//	site-gpu1..2  gpuqd with two simulated devices each
//	site-gpu3     a bare host, until it joins
//
// The tests are one history of one site, so they are parts of one test, in order:
// what a part needs, those before it have made. MongoDB's own packages are not to be
// had from Debian; its part of the roles is not run here, docs/testing.md says so.
//
// Environment:
//
//	GPUQ_SITE=1           run it: without it the test is skipped
//	GPUQ_SITE_DEBS=DIR    install packages that were built before: DIR/1.0.0/*.deb and DIR/1.1.0/*.deb
//	GPUQ_SITE_KEEP=1      leave hosts, inventory and secrets as they are when a part fails, and say where
//	GPUQ_LAB_CACHE=DIR    where base systems and Debian packages are kept, instead of /var/cache/gpuq-lab
package site

// Package hosts tests gpuqd on Debian hosts with systemd: installed from its
// packages, under its unit, with jobs in units of their own, while hosts are
// rebooted, lose power and are cut off. `make e2e` runs it.
//
// The site is one for all tests, made by the first that needs it:
//
//	svc         RabbitMQ and Redis of Debian's, and the MongoDB-wire stand-in
//	gpu1..gpu3  gpuqd in containers that share this machine's kernel, two simulated devices each
//	vm          gpuqd on a machine with a kernel and cgroup v2 of its own; slow, so only for what needs that
//
// Each host serves the pool of its own name, gpu1..gpu3 the pool default as
// well. What ran is judged by what the jobs themselves have written and synced
// on the disk of their host, test/hosts/witness, and by the ledger's document;
// each test leaves the site whole for the next.
//
// Environment:
//
//	GPUQ_HOSTS=1             run these tests: without it they are skipped
//	GPUQ_LAB=DIR             use the running hosts of another lab: DIR/lab is its script, DIR/ssh_config that of ssh, DIR/hosts
//	                         its hosts in the order svc gpu1 gpu2 gpu3 vm, by line
//	GPUQ_HOSTS_DEBS=DIR      install packages that were built before: DIR/1.0.0/*.deb and DIR/1.1.0/*.deb
//	GPUQ_LAB_CACHE=DIR       where base systems and Debian packages are kept, instead of /var/cache/gpuq-lab
package hosts

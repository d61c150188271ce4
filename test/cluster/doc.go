// Package cluster runs a whole gpuqd on one machine: RabbitMQ nodes, Redis, the
// ledger, and daemons that take each other for different hosts. `make up` keeps
// one in .gpuq through the program gpuq-cluster; end-to-end tests start their
// own, in the test's process.
//
// What lies in a cluster's directory:
//
//	cluster.json        what was chosen at the first start: ports, ledger
//	gpuqctl.toml        the configuration that makes gpuqctl find this cluster
//	secrets/            generated passwords, mode 0600
//	run/                one record per process, by which it is found again
//	log/                one log per process
//	rabbitmq/, redis/   the servers' configuration and data
//	mongodb/, ledger.db the ledger: one of them
//	worker_1/           a daemon's configuration and state directory
//	work/               GPUQ_WORKDIR of all jobs, shared by the workers
//
// All of it, and every process, is this cluster's own: Stop ends and Remove
// deletes exactly that.
package cluster

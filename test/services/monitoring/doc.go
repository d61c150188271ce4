// Package monitoring starts the real programs that watch a site, Prometheus,
// Alertmanager, the exporters, Loki, Promtail and journald, as ordinary processes on
// private ports and directories.
//
// Their configurations are the templates of the roles in ansible/, rendered with
// other addresses and directories: what is tried here is what a site runs. So the
// caller works somewhere inside the checkout.
//
// A journald of one's own takes neither root nor a container: RUNTIME_DIRECTORY and
// LOGS_DIRECTORY say where its sockets and files are, and as an instance for a
// namespace it leaves the kernel's log and the host's journal alone.
package monitoring

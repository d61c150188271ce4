package services

import "path/filepath"

// CtlCommand returns how rabbitmqctl is run against a node from any
// environment, without a subcommand: for gpuqd's broker.rabbitmqctl. It holds no
// secret: the cookie is in a file that it points at.
func (c *RabbitCluster) CtlCommand(node *RabbitNode) []string {
	command := append([]string{"env"}, c.env()...)
	return append(command, "RABBITMQ_CONF_ENV_FILE="+node.path("rabbitmq-env.conf"), filepath.Join(rabbitBin, "rabbitmqctl"), "-n", node.Name)
}

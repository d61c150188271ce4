package broker

import (
	"regexp"
)

// Permissions is what an account may do on the broker's vhost: a regular
// expression per kind, as `rabbitmqctl set_permissions` takes them.
type Permissions struct {
	Configure string // queues and exchanges it may declare or delete
	Write     string // exchanges it may publish to, queues it may bind
	Read      string // queues it may get from and consume, exchanges it may bind to
}

// nothing matches no name.
const nothing = "^$"

// UserPermissions lets an account submit jobs and ask daemons, and nothing
// else. The answer comes by direct reply-to, which needs no permission of its
// own (measured on 3.10.8).
func UserPermissions() Permissions {
	return Permissions{
		Configure: nothing,
		Write:     "^(" + regexp.QuoteMeta(ExchangeSubmit) + "|" + regexp.QuoteMeta(ExchangeControl) + ")$",
		Read:      nothing,
	}
}

// OperatorPermissions are a user's: what makes an operator is the daemons'
// configuration, not the broker.
func OperatorPermissions() Permissions { return UserPermissions() }

// HostPermissions lets a daemon do what hosts do: everything below gpuq., and
// publishing through the default exchange, which replies and job messages take.
func HostPermissions() Permissions {
	return Permissions{
		Configure: `^gpuq\.`,
		Write:     `^(gpuq\..*|amq\.default)$`,
		Read:      `^(gpuq\..*|amq\.default)$`,
	}
}

package hosts

import (
	"crypto/rand"
	"encoding/json"

	"gpuqd/daemon/broker"
)

// account is the hosts' own at the broker.
const account = "gpuqd"

// secrets are the passwords of one site.
type secrets struct{ broker, redis string }

func newSecrets() secrets { return secrets{broker: rand.Text(), redis: rand.Text()} }

// definitions returns the broker's accounts: the hosts', with the rights of a
// host and no more. There is no guest.
func (s secrets) definitions() ([]byte, error) {
	may := broker.HostPermissions()
	return json.MarshalIndent(map[string]any{
		"vhosts": []any{map[string]any{"name": "/"}},
		"users":  []any{map[string]any{"name": account, "password": s.broker, "tags": []string{}}},
		"permissions": []any{map[string]any{
			"user": account, "vhost": "/", "configure": may.Configure, "write": may.Write, "read": may.Read,
		}},
	}, "", "  ")
}

package control

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
)

// Dial returns a client with the ways that the settings name: each socket, then
// the broker. Nothing is connected, and no password read, before it is needed.
func Dial(cfg config.Client) *Client {
	var ways []Way
	for _, path := range cfg.Sockets {
		ways = append(ways, SocketWay(path))
	}
	if len(cfg.Broker.URLs) > 0 {
		ways = append(ways, &brokerWay{
			name: "broker, as " + cfg.Broker.User,
			load: func() (broker.Config, error) { return brokerConfig(cfg.Broker) },
		})
	}
	c := NewClient(ways...)
	if cfg.Timeout > 0 {
		c.AttemptTimeout = cfg.Timeout.Std()
	}
	return c
}

func brokerConfig(cfg config.ClientBroker) (broker.Config, error) {
	out := broker.Config{URLs: cfg.URLs, User: cfg.User}
	if cfg.PasswordFile != "" {
		password, err := config.Secret(cfg.PasswordFile)
		if err != nil {
			return out, err
		}
		out.Password = password
	}
	host, err := os.Hostname()
	if err != nil {
		return out, fmt.Errorf("read the kernel's host name: %w", err)
	}
	out.Host = host
	if cfg.CAFile == "" {
		return out, nil
	}
	pem, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		return out, fmt.Errorf("read the broker's authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return out, fmt.Errorf("read the broker's authorities: %s has no PEM certificate", cfg.CAFile)
	}
	out.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return out, nil
}

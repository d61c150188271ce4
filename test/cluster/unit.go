package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/cluster/supervisor"
	"gpuqd/test/services"
)

// rabbitReadyTimeout bounds the start of a node: alone it is ready in five
// seconds, but it also waits for its peers, and the machine may be busy.
const rabbitReadyTimeout = 3 * time.Minute

// prepareRabbit writes the files of the RabbitMQ nodes, with their accounts.
func (c *Cluster) prepareRabbit(ctx context.Context) error {
	n := c.settings.RabbitNodes
	var amqp, dist []int
	for i := 1; i <= n; i++ {
		amqp = append(amqp, c.settings.Ports[rabbitName(i)])
		dist = append(dist, c.settings.Ports[distPort(i)])
	}
	ports := append(append(amqp, dist...), c.settings.Ports[epmdPort])
	rabbit, err := services.NewRabbitCluster(c.files.path("rabbitmq"), n, ports...)
	if err != nil {
		return err
	}
	if c.opts.ConsumerTimeout > 0 {
		if err := rabbit.SetConsumerTimeout(c.opts.ConsumerTimeout); err != nil {
			return err
		}
	}
	if c.settings.Monitoring {
		if err := rabbit.SetMetricsPorts(c.ports(n, rabbitMetricsPort)...); err != nil {
			return err
		}
	}
	c.rabbit = rabbit
	accounts := []struct {
		name, secret string
		may          broker.Permissions
	}{
		{c.account, secretHost, broker.HostPermissions()},
		{c.user, secretUser, broker.UserPermissions()},
	}
	for _, a := range accounts {
		password, err := c.files.secret(a.secret)
		if err != nil {
			return err
		}
		if err := rabbit.AddUser(ctx, a.name, password, a.may.Configure, a.may.Write, a.may.Read); err != nil {
			return err
		}
	}
	for _, node := range rabbit.Nodes {
		c.brokerURLs = append(c.brokerURLs, fmt.Sprintf("amqp://127.0.0.1:%d/", node.Port))
	}
	return nil
}

// serverUnits returns the servers, in waves: those of one wave start together,
// when the wave before them is ready.
func (c *Cluster) serverUnits() ([][]supervisor.Unit, error) {
	redisPassword, err := c.files.secret(secretRedis)
	if err != nil {
		return nil, err
	}
	redis, err := services.NewRedis(services.RedisOptions{
		Dir: c.files.path("redis"), Port: c.settings.Ports[redisName], Password: redisPassword, Orphan: c.opts.Orphan,
	})
	if err != nil {
		return nil, err
	}
	epmd := c.rabbit.Epmd
	first := []supervisor.Unit{
		c.serverUnit(epmdPort, epmd, c.settings.Ports[epmdPort]),
		c.serverUnit(redisName, redis.Process, c.settings.Ports[redisName]),
	}
	if c.ledger.process != nil {
		first = append(first, c.serverUnit(mongodbName, c.ledger.process, c.settings.Ports[mongodbName]))
	}
	var second []supervisor.Unit
	for i, node := range c.rabbit.Nodes {
		ports := []int{node.Port, c.settings.Ports[distPort(i+1)]}
		if node.MetricsPort != 0 {
			ports = append(ports, node.MetricsPort)
		}
		u := c.serverUnit(rabbitName(i+1), node.Process, ports...)
		u.ReadyTimeout, u.StopGrace = rabbitReadyTimeout, 30*time.Second
		second = append(second, u)
	}
	watching, err := c.monitoringUnits()
	if err != nil {
		return nil, err
	}
	return [][]supervisor.Unit{append(first, watching.first...), append(second, watching.second...)}, nil
}

// serverUnit makes a unit of a server's process. The first port is for people.
func (c *Cluster) serverUnit(name string, p *services.Process, ports ...int) supervisor.Unit {
	p.Name, p.Orphan, p.LogPath = name, c.opts.Orphan, c.files.log(name)
	p.Env = append(p.Env, Marker(c.files.dir))
	port := 0
	if len(ports) > 0 {
		port = ports[0]
	}
	return supervisor.Unit{
		Process: p, Port: port,
		Check: func() error {
			for _, port := range ports {
				if err := portFree(port); err != nil {
					return err
				}
			}
			return nil
		},
		// A server that runs on is as good as a new one, unless it listens
		// elsewhere: what else is in its files does not change.
		Fingerprint: fmt.Sprint(ports),
	}
}

// fingerprint changes when the process would: its program, arguments, or one of
// the files it reads.
func fingerprint(p *services.Process, files ...string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, p.Path, strings.Join(p.Args, " "))
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("prepare %s: %w", p.Name, err)
		}
		_, err = io.Copy(sum, file)
		_ = file.Close() // read only
		if err != nil {
			return "", fmt.Errorf("prepare %s: %w", p.Name, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gpuqd/daemon/config"
	"gpuqd/test/services"
)

// settings is what a cluster keeps from its first start to its removal.
type settings struct {
	Schema           int            `json:"schema"`
	Ledger           string         `json:"ledger"`
	Workers          int            `json:"workers"`
	DevicesPerWorker int            `json:"devices_per_worker"`
	RabbitNodes      int            `json:"rabbit_nodes"`
	Ports            map[string]int `json:"ports"` // by what listens there
	Monitoring       bool           `json:"monitoring,omitempty"`
}

const settingsSchema = 1

// errOtherSettings means that the cluster there is another than the one asked
// for.
var errOtherSettings = errors.New("run `make down` first, which removes its data")

// loadSettings returns the settings of the cluster in a directory;
// fs.ErrNotExist where there is none.
func loadSettings(l layout) (*settings, error) {
	text, err := os.ReadFile(l.settings())
	if err != nil {
		return nil, err
	}
	var s settings
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s is damaged: end the processes that name %s, then remove it: %w", l.settings(), l.dir, err)
	}
	if s.Schema != settingsSchema {
		return nil, fmt.Errorf("the cluster in %s was made by another version (%d, want %d): %w",
			l.dir, s.Schema, settingsSchema, errOtherSettings)
	}
	return &s, nil
}

// settle returns the settings of the cluster, choosing and saving them at its
// first start.
func settle(l layout, o Options) (*settings, error) {
	s, err := loadSettings(l)
	if errors.Is(err, fs.ErrNotExist) {
		return chooseSettings(l, o)
	}
	if err != nil {
		return nil, err
	}
	if o.Ledger != LedgerAuto && o.Ledger != s.Ledger {
		return nil, fmt.Errorf("the cluster in %s has a %s ledger: for a %s one %w", l.dir, s.Ledger, o.Ledger, errOtherSettings)
	}
	if s.Workers != o.Workers || s.DevicesPerWorker != o.DevicesPerWorker || s.RabbitNodes != o.RabbitNodes {
		return nil, fmt.Errorf("the cluster in %s has %d workers with %d devices each and %d RabbitMQ nodes: for another one %w",
			l.dir, s.Workers, s.DevicesPerWorker, s.RabbitNodes, errOtherSettings)
	}
	if o.Monitoring != nil && !s.Monitoring {
		return s, s.addMonitoring(l)
	}
	return s, nil
}

func chooseSettings(l layout, o Options) (*settings, error) {
	s := &settings{
		Schema: settingsSchema, Ledger: o.ledgerKind(), Workers: o.Workers,
		DevicesPerWorker: o.DevicesPerWorker, RabbitNodes: o.RabbitNodes, Ports: map[string]int{},
	}
	names := []string{epmdPort, redisName}
	for n := 1; n <= o.RabbitNodes; n++ {
		names = append(names, rabbitName(n), distPort(n))
	}
	for n := 1; n <= o.Workers; n++ {
		names = append(names, workerName(n)) // metrics
	}
	if s.Ledger == config.LedgerMongoDB {
		names = append(names, mongodbName)
	}
	if err := s.choosePorts(names); err != nil {
		return nil, err
	}
	if o.Monitoring != nil {
		return s, s.addMonitoring(l)
	}
	return s, s.save(l)
}

// addMonitoring makes it a cluster that is watched.
func (s *settings) addMonitoring(l layout) error {
	if err := s.choosePorts(monitoringPorts(s.RabbitNodes, s.Workers)); err != nil {
		return err
	}
	s.Monitoring = true
	return s.save(l)
}

// choosePorts gives each name a port.
func (s *settings) choosePorts(names []string) error {
	ports, err := services.FreePorts(len(names))
	if err != nil {
		return err
	}
	for i, name := range names {
		s.Ports[name] = ports[i]
	}
	return nil
}

func (s *settings) save(l layout) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.settings() + ".tmp"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("save the cluster's settings: %w", err)
	}
	if err := os.Rename(tmp, l.settings()); err != nil {
		return fmt.Errorf("save the cluster's settings: %w", err)
	}
	return nil
}

// The names of ports that are not units.
const epmdPort = "epmd"

func distPort(n int) string { return rabbitName(n) + "_distribution" }

// exists reports whether there is a cluster in a directory.
func exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cluster.json"))
	return err == nil
}

package config

import (
	"time"

	"gpuqd/daemon/job"
)

// Default returns the settings that a file is decoded over: those of a single
// GPU machine, whose ledger is a SQLite file beside the state. Hosts that share
// a queue set ledger.kind to "mongodb" and name the broker's nodes.
//
// Lists are empty, never nil, so that a key written at its default compares
// equal to one left out.
func Default() Config {
	return Config{
		Host: Host{
			Pools:           []string{"default"},
			StateDir:        "/var/lib/gpuqd",
			SlotsWithoutGPU: 2,
		},
		Broker: Broker{
			URLs:           []string{"amqp://127.0.0.1:5672/"},
			User:           "gpuqd",
			PasswordFile:   credentialsPrefix + "broker.password",
			TakeTimeout:    seconds(10),
			ConfirmTimeout: seconds(10),
			Rabbitmqctl:    []string{},
			Heartbeat:      seconds(10),
		},
		Ledger: Ledger{
			Kind:     LedgerSQLite,
			Path:     "/var/lib/gpuqd/ledger.db",
			URI:      "mongodb://127.0.0.1:27017",
			Database: "gpuq",
			Timeout:  seconds(5),
		},
		Redis: Redis{
			Addresses: []string{},
			TTL:       hours(24),
			Timeout:   job.Duration(200 * time.Millisecond),
		},
		Lease: Lease{
			TTL:    job.Duration(5 * time.Minute),
			Renew:  seconds(20),
			OnLoss: OnLossFreeze,
			// A frozen attempt blocks nobody: without the ledger its host can
			// start nothing else. So the bound is there for what a freeze
			// cannot keep (peers' connections, licences, a result that is still
			// wanted), and a day gives people the next working day to repair
			// the ledger before work is thrown away.
			FreezeMax: hours(24),
		},
		Take: Take{
			Tick:         seconds(5),
			Slack:        seconds(30),
			ClaimTimeout: job.Duration(2 * time.Minute),
			ShapesMax:    256,
		},
		Device: Device{
			Kind:                 DeviceNVML,
			Include:              []string{},
			Helper:               "/usr/lib/gpuqd/gpuqd-device",
			Silence:              seconds(30),
			BreakerFast:          seconds(30),
			AllowProcesses:       []string{},
			SimulatedModel:       "Simulated GPU",
			SimulatedMemoryBytes: 80 << 30,
			SimulatedNodes:       []string{},
			SimulatedFaults:      SimulatedFaults{},
		},
		Runner: Runner{
			Starter: StarterAuto,
			Shim:    "/usr/lib/gpuqd/gpuqd-shim",
			// Ample for a training log, and little enough that a command which
			// prints in a loop is cut off before it fills a usual disk.
			LogBytesMax: 1 << 30,
			// Two weeks cover a holiday of the person who will ask; the bound
			// in bytes wins where a host writes more than that.
			KeepLogs:      hours(14 * 24),
			KeepLogsBytes: 20 << 30,
			JournalOutput: true,
			NUMA:          NUMAPrefer,
			DeviceNodes:   []string{},
			Accounts:      map[string]string{},
		},
		Control: Control{
			Socket:    defaultSocket,
			Operators: []string{},
		},
		Log: Log{
			Level:         "info",
			Format:        LogAuto,
			JournalSocket: "/run/systemd/journal/socket", // journald.Socket
		},
	}
}

// defaultSocket is where the daemon listens and gpuqctl looks for it.
const defaultSocket = "/run/gpuqd/gpuqd.sock"

func seconds(n int) job.Duration { return job.Duration(time.Duration(n) * time.Second) }

func hours(n int) job.Duration { return job.Duration(time.Duration(n) * time.Hour) }

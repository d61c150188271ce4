package config

import (
	"reflect"
	"slices"
)

// live are the keys that a reload applies to a daemon that runs: what is read anew
// at each use, and where a job that runs under the old value is no harm. All else
// is part of a connection, a lock, a promise to other hosts, or of what an
// attempt was started with, and takes a restart.
var live = []string{
	"control.operators",
	"lease.freeze_max",
	"log.level",
	"runner.keep_logs",
	"runner.keep_logs_bytes",
	"runner.log_bytes_max",
	"runner.numa",
}

// IsLive reports whether a reload applies the key.
func IsLive(key string) bool { return slices.Contains(live, key) }

// Reloaded returns the settings that a daemon goes on with which runs by c and
// finds next on disk: c with the live keys of next. It names the keys that this
// changes, and those that differ and need a restart.
func (c Config) Reloaded(next Config) (merged Config, changed, restart []string) {
	merged = c
	from, into := reflect.ValueOf(next), reflect.ValueOf(&merged).Elem()
	for i := range into.NumField() {
		section := into.Type().Field(i).Tag.Get("toml")
		for k := range into.Field(i).NumField() {
			key := dotted(section, into.Field(i).Type().Field(k).Tag.Get("toml"))
			theirs, ours := from.Field(i).Field(k), into.Field(i).Field(k)
			switch {
			case reflect.DeepEqual(theirs.Interface(), ours.Interface()):
			case IsLive(key):
				ours.Set(theirs)
				changed = append(changed, key)
			default:
				restart = append(restart, key)
			}
		}
	}
	return merged, changed, restart
}

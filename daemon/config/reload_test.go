package config

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

// Every live key is a key, and every key is either live or needs a restart: each
// is changed alone, and exactly that one is named.
func TestReloadNamesEveryKeyThatDiffers(t *testing.T) {
	seen := map[string]bool{}
	for i := range reflect.TypeFor[Config]().NumField() {
		section := reflect.TypeFor[Config]().Field(i)
		for k := range section.Type.NumField() {
			key := dotted(section.Tag.Get("toml"), section.Type.Field(k).Tag.Get("toml"))
			seen[key] = true
			c, next := Default(), Default()
			alter(reflect.ValueOf(&next).Elem().Field(i).Field(k))
			merged, changed, restart := c.Reloaded(next)
			want, got := &restart, c
			if IsLive(key) {
				want, got = &changed, next
			}
			if !slices.Equal(*want, []string{key}) || len(changed)+len(restart) != 1 {
				t.Errorf("%s: applied %q, restart for %q", key, changed, restart)
			}
			if !reflect.DeepEqual(merged, got) {
				t.Errorf("%s: the daemon goes on with %+v", key, merged)
			}
		}
	}
	for _, key := range live {
		if !seen[key] {
			t.Errorf("%s is no key", key)
		}
	}
}

func alter(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
	case reflect.Map:
		fresh := reflect.MakeMap(v.Type())
		fresh.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
		v.Set(fresh)
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		v.SetInt(v.Int() + 1)
	}
}

func TestReloadLeavesTheOldSettingsAlone(t *testing.T) {
	c, next := Default(), Default()
	next.Control.Operators = []string{"olga"}
	next.Lease.FreezeMax = job.Duration(time.Hour)
	if _, changed, restart := c.Reloaded(next); len(changed) != 2 || len(restart) != 0 {
		t.Errorf("applied %q, restart for %q", changed, restart)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("the settings that ran are now %+v", c)
	}
}

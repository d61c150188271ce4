package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// relay is a broker by which one other host answers.
type relay struct {
	*outbox
	host string
	to   control.Handler
}

func (r *relay) Request(ctx context.Context, _, key string, body []byte, _ map[string]any) ([]byte, error) {
	if key != broker.HostKey(r.host) {
		return nil, broker.ErrNoHost
	}
	var req control.Request
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	caller := *req.Caller
	caller.Via = control.ViaForwarded
	return json.Marshal(control.Dispatch(ctx, r.to, caller, req))
}

// hung is a broker by which the other host takes requests and answers none.
type hung struct{ *outbox }

func (hung) Request(context.Context, string, string, []byte, map[string]any) ([]byte, error) {
	return nil, fmt.Errorf("request: %w", context.DeadlineExceeded)
}

// otherHost answers what its test looks at.
type otherHost struct {
	control.Handler
	asked []control.SimulateDeviceArgs
	by    control.Caller
}

func (o *otherHost) SimulateDevice(_ context.Context, c control.Caller, args control.SimulateDeviceArgs) (control.SimulateDeviceReply, error) {
	o.asked, o.by = append(o.asked, args), c
	return control.SimulateDeviceReply{Host: args.Host, Devices: []string{"GPU-of-c"}}, nil
}

func (o *otherHost) Devices(_ context.Context, _ control.Caller, args control.DevicesArgs) (control.DevicesReply, error) {
	return control.DevicesReply{Devices: []control.DeviceRow{{Host: args.Host, UUID: "GPU-of-c", DeviceFacts: control.DeviceFacts{PCIAddress: "0000:1b:00.0"}}}}, nil
}

func faultAt(host, on string, kind fault.Kind) control.SimulateDeviceArgs {
	return control.SimulateDeviceArgs{ID: job.NewID(), Host: host, Fault: fault.Fault{Kind: kind, Device: on}}
}

func TestFaultStrikesTheDeviceAndIsRecorded(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	uuid := device.SimulatedUUID("a", 1)
	args := faultAt("a", "1", fault.Sick)
	args.Fault.Reason = "it smokes"
	reply, err := b.SimulateDevice(ctx, operator, args)
	if err != nil || reply.Host != "a" || !slices.Equal(reply.Devices, []string{uuid}) {
		t.Fatalf("%+v, %v", reply, err)
	}
	rows, err := b.Devices(ctx, ada, control.DevicesArgs{Host: "a"})
	if err != nil || len(rows.Devices) != 2 {
		t.Fatalf("%+v, %v", rows, err)
	}
	if d := rows.Devices[1]; d.State != string(device.Sick) || d.Reason != "it smokes" || !slices.Equal(d.Faults, []string{`sick "it smokes"`}) || d.Since.IsZero() {
		t.Errorf("device 1 is %+v", d)
	}
	if d := rows.Devices[0]; d.State != string(device.Free) || d.Faults != nil {
		t.Errorf("device 0 is %+v", d)
	}
	b.clock.pass(time.Second) // events are in the order of their times
	if _, err := b.SimulateDevice(ctx, operator, faultAt("a", "all", fault.Clear)); err != nil {
		t.Fatal(err)
	}
	if free := b.devices.Free(); len(free) != 2 {
		t.Errorf("%d devices are free once all is clear", len(free))
	}
	want := []string{"olga simulate_device a: clear, on 2 devices", "olga simulate_device a/" + uuid + `: sick "it smokes"`}
	if got := b.deviceEvents(t); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// deviceEvents are the events of faults, the newest first.
func (b operateBench) deviceEvents(t *testing.T) (list []string) {
	t.Helper()
	reply, err := b.Events(t.Context(), operator, control.EventsArgs{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range reply.Events {
		if e.What == string(control.VerbSimulateDevice) {
			list = append(list, e.Who+" "+e.What+" "+e.Target+": "+e.Why)
		}
	}
	return list
}

func TestFaultThatIsAskedForAgainStrikesOnce(t *testing.T) {
	b := newOperateBench(t)
	args := faultAt("a", "0", fault.Uncorrected)
	for range 3 {
		if _, err := b.SimulateDevice(t.Context(), operator, args); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.devices.Snapshot()[0].ECC.Uncorrected; got != 1 || len(b.deviceEvents(t)) != 1 {
		t.Errorf("%d errors, events %q, want one of each", got, b.deviceEvents(t))
	}
	args.ID = job.NewID()
	if _, err := b.SimulateDevice(t.Context(), operator, args); err != nil || b.devices.Snapshot()[0].ECC.Uncorrected != 2 {
		t.Errorf("another one is not carried out: %v", err)
	}
}

func TestFaultIsRefused(t *testing.T) {
	none := func(operateBench) {}
	for name, c := range map[string]struct {
		caller control.Caller
		args   control.SimulateDeviceArgs
		change func(operateBench)
		want   error
		says   string
	}{
		"OfAUser":       {ada, faultAt("a", "0", fault.Lost), none, control.ErrForbidden, "only operators"},
		"UnknownHost":   {operator, faultAt("x", "0", fault.Lost), none, control.ErrNotFound, "there is no host x"},
		"UnknownDevice": {operator, faultAt("a", "2", fault.Lost), none, control.ErrNotFound, "host a has no such device"},
		"Malformed":     {operator, faultAt("a", "0", fault.XID), none, control.ErrBadRequest, "xid needs it"},
		"RealDevices": {operator, faultAt("a", "0", fault.Lost), func(b operateBench) {
			b.devices = device.New("a", new(device.Helper), nil)
		}, control.ErrConflict, "the devices are real"},
		"ForwardedToAnother": {
			control.Caller{User: "olga", Operator: true, Via: control.ViaForwarded},
			faultAt("c", "0", fault.Lost), none, control.ErrNotFound, "this is host a, not c",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOperateBench(t)
			c.change(b)
			_, err := b.SimulateDevice(t.Context(), c.caller, c.args)
			if e := control.AsError(err); !errors.Is(e, c.want) || !strings.Contains(e.Error(), c.says) {
				t.Errorf("got %v, want %v: %q", err, c.want, c.says)
			}
			if got := b.deviceEvents(t); len(got) > 0 {
				t.Errorf("recorded %q", got)
			}
		})
	}
}

func TestOtherHostIsAskedForItsDevices(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.addHost(t, "c", 1)
	other := new(otherHost)
	b.broker = &relay{outbox: b.box, host: "c", to: other}
	t.Run("ToLetAFaultStrike", func(t *testing.T) {
		args := faultAt("c", "0", fault.Lost)
		reply, err := b.SimulateDevice(ctx, operator, args)
		if err != nil || reply.Host != "c" || len(other.asked) != 1 || other.asked[0] != args || other.by.User != "olga" || !other.by.Operator {
			t.Errorf("%+v, %v; asked %+v by %+v", reply, err, other.asked, other.by)
		}
	})
	t.Run("ToShowThemInItsOwnWords", func(t *testing.T) {
		reply, err := b.Devices(ctx, ada, control.DevicesArgs{Host: "c"})
		if err != nil || len(reply.Devices) != 1 || reply.Devices[0].PCIAddress == "" || len(reply.Warnings) > 0 {
			t.Errorf("%+v, %v", reply, err)
		}
	})
	t.Run("AndMayStillLetItStrikeWhenItDoesNotAnswer", func(t *testing.T) {
		b.broker = hung{b.box}
		_, err := b.SimulateDevice(ctx, operator, faultAt("c", "0", fault.Lost))
		if !errors.Is(err, control.ErrUnknownOutcome) || !strings.Contains(err.Error(), "host c has not answered") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("UnlessItDoesNotAnswer", func(t *testing.T) {
		b.broker = b.box
		reply, err := b.Devices(ctx, ada, control.DevicesArgs{Host: "c"})
		if err != nil || len(reply.Devices) != 1 || reply.Devices[0].UUID != device.SimulatedUUID("c", 0) ||
			len(reply.Warnings) != 1 || !strings.Contains(reply.Warnings[0], "shown as of its last renewal") {
			t.Errorf("%+v, %v", reply, err)
		}
	})
}

// What the ledger keeps of a device suffices for the list of another host, and
// has no more in it.
func TestHostDocumentHasTheFiguresOfItsDevices(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	for _, f := range []fault.Fault{
		{Kind: fault.Temperature, Device: "0", Celsius: 81},
		{Kind: fault.Uncorrected, Device: "0", Count: 2},
		{Kind: fault.Throttle, Device: "0", Reason: "hot"},
	} {
		args := control.SimulateDeviceArgs{ID: job.NewID(), Host: "a", Fault: f}
		if _, err := b.SimulateDevice(ctx, operator, args); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.renewOnce(ctx); err != nil {
		t.Fatal(err)
	}
	h, err := b.ledger.Host(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	h.Name = "elsewhere" // as another host reads it
	rows := b.deviceRows(h)
	if d := rows[0]; d.TemperatureCelsius == nil || *d.TemperatureCelsius != 81 || d.ECC == nil || d.ECC.Uncorrected != 2 ||
		d.Since.IsZero() || d.Throttle != nil || d.Faults != nil {
		t.Errorf("%+v", d)
	}
	h.Session.State = ledger.Expired
	if d := b.deviceRows(h)[0]; d.State != string(device.Sick) || d.Reason != "its host is not live" || d.TemperatureCelsius != nil {
		t.Errorf("of a host that is not live: %+v", d)
	}
}

func TestHostsNameSickDevices(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	args := faultAt("a", "1", fault.Sick)
	args.Fault.Reason = "it smokes"
	if _, err := b.SimulateDevice(ctx, operator, args); err != nil {
		t.Fatal(err)
	}
	if err := b.renewOnce(ctx); err != nil {
		t.Fatal(err)
	}
	reply, err := b.Hosts(ctx, ada)
	want := control.SickDevice{UUID: device.SimulatedUUID("a", 1), Index: 1, Reason: "it smokes"}
	if err != nil || len(reply.Hosts) != 1 || !slices.Equal(reply.Hosts[0].Sick, []control.SickDevice{want}) || reply.Hosts[0].DevicesFree != 1 {
		t.Errorf("%+v, %v", reply, err)
	}
}

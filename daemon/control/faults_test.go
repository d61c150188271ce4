package control

import (
	"testing"

	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

// TestFaultIsCheckedBeforeItIsPassedOn: what cannot be meant reaches no host.
func TestFaultIsCheckedBeforeItIsPassedOn(t *testing.T) {
	good := SimulateDeviceArgs{ID: job.NewID(), Host: "gpu1", Fault: fault.Fault{Kind: fault.XID, Device: "0", XID: 79}}
	for name, change := range map[string]func(*SimulateDeviceArgs){
		"ID":     func(a *SimulateDeviceArgs) { a.ID = "1" },
		"Host":   func(a *SimulateDeviceArgs) { a.Host = "" },
		"Kind":   func(a *SimulateDeviceArgs) { a.Fault.Kind = "fire" },
		"Device": func(a *SimulateDeviceArgs) { a.Fault.Device = "" },
		"Code":   func(a *SimulateDeviceArgs) { a.Fault.XID = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			args := good
			change(&args)
			r := newRecorder()
			c := clientOf(serve(t, r, nil).opts.Socket)
			defer c.Close()
			_, err := c.SimulateDevice(t.Context(), args)
			wantErr(t, err, ErrBadRequest)
			if len(r.callers) > 0 {
				t.Error("the handler was asked")
			}
		})
	}
	t.Run("AndGetsAnIDOfItsOwn", func(t *testing.T) {
		c := clientOf(serve(t, newRecorder(), nil).opts.Socket)
		defer c.Close()
		seen := map[string]bool{}
		for range 2 {
			args := good
			args.ID = ""
			reply, err := c.SimulateDevice(t.Context(), args)
			if err != nil || reply.Host != "gpu1" || reply.Devices[1] != "xid 79" {
				t.Fatalf("%+v, %v", reply, err)
			}
			seen[reply.Devices[0]] = true
		}
		if len(seen) != 2 {
			t.Errorf("two faults under one ID: %v", seen)
		}
	})
}

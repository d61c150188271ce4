package agent

import (
	"context"

	"gpuqd/daemon/device"
	"gpuqd/daemon/runner"
)

// alarmLoop ends the attempts that the devices raise an alarm for.
func (a *Agent) alarmLoop(ctx context.Context) error {
	for {
		wake := rest(ctx) // most devices never fail
		select {
		case <-ctx.Done():
			wake()
			return nil
		case alarm := <-a.devices.Alarms():
			wake()
			beat(ctx)
			a.endAlarmed(alarm)
		}
	}
}

// alarmStops are why an attempt is stopped for an alarm.
var alarmStops = map[device.AlarmKind]runner.StopReason{
	device.AlarmDevice: runner.StopDevice,
	device.AlarmMemory: runner.StopOOMGPU,
}

// endAlarmed ends one attempt. An alarm is raised again for as long as its reason
// lasts, so one whose attempt is gone, or is being ended for another reason, is no
// news; one that is being ended for this one is asked again, should the first request
// not have come through.
func (a *Agent) endAlarmed(alarm device.Alarm) {
	r := a.runs.ofJob(alarm.JobID)
	if r == nil || r.number != alarm.Attempt || r.committing() {
		return
	}
	switch wish := r.wish(); {
	case wish == nil:
	case wish.Reason == alarmStops[alarm.Kind]:
		r.stop(*wish)
		return
	default:
		return
	}
	a.log.Warn("attempt is ended over its devices", "job_id", alarm.JobID, "attempt", alarm.Attempt, "fence", r.hold.Fence,
		"reason", alarm.Detail)
	r.stop(runner.Stop{Reason: alarmStops[alarm.Kind], Detail: alarm.Detail})
}

package main

import (
	"encoding/binary"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

// prober asks one device what not every driver tells. An answer that is not to be
// had is none and costs the device nothing, except for one that says that the
// device is lost: nothing more is asked then, and err says so.
type prober struct {
	*sampler
	handle nvml.Device
	err    error
}

// ask reports whether the answer was had. symbol is the call's name in the library.
func (p *prober) ask(symbol, what string, call func() nvml.Return) bool {
	if p.err != nil || !p.has(symbol) {
		return false
	}
	ret := call()
	p.step()
	if isLost(ret) {
		p.err = p.check(what, ret)
	}
	return ret == nvml.SUCCESS
}

// condition asks a GPU how it fares. An error means that it is lost.
func (s *sampler) condition(handle nvml.Device) (device.Condition, error) {
	p := &prober{sampler: s, handle: handle}
	c := device.Condition{
		UtilisationPercent: p.utilisation(),
		TemperatureCelsius: p.temperature(),
		PowerWatts:         p.watts("nvmlDeviceGetPowerUsage", "read the power", handle.GetPowerUsage),
		PowerLimitWatts:    p.watts("nvmlDeviceGetEnforcedPowerLimit", "read the power limit", handle.GetEnforcedPowerLimit),
		Throttle:           p.throttle(),
		ECC:                p.ecc(),
		Recovery:           p.recovery(),
	}
	return c, p.err
}

// utilisation is not to be had of a GPU in MIG mode.
func (p *prober) utilisation() *int {
	var rates nvml.Utilization
	ok := p.ask("nvmlDeviceGetUtilizationRates", "read the utilisation", func() (ret nvml.Return) {
		rates, ret = p.handle.GetUtilizationRates()
		return ret
	})
	return told(ok, int(rates.Gpu))
}

func (p *prober) temperature() *int {
	var celsius uint32
	ok := p.ask("nvmlDeviceGetTemperature", "read the temperature", func() (ret nvml.Return) {
		celsius, ret = p.handle.GetTemperature(nvml.TEMPERATURE_GPU)
		return ret
	})
	return told(ok, int(celsius))
}

// watts asks for something that NVML tells in milliwatts.
func (p *prober) watts(symbol, what string, call func() (uint32, nvml.Return)) *float64 {
	var milliwatts uint32
	ok := p.ask(symbol, what, func() (ret nvml.Return) {
		milliwatts, ret = call()
		return ret
	})
	return told(ok, float64(milliwatts)/1000)
}

// told returns a value that was had, and nil for one that was not.
func told[T any](ok bool, value T) *T {
	if !ok {
		return nil
	}
	return &value
}

// throttleReasons names the reasons that hold clocks down, in the order of their
// bits. Being idle is none. Source: nvmlClocksEventReasons in nvml.h.
var throttleReasons = []struct {
	bit  uint64
	name string
}{
	{nvml.ClocksEventReasonApplicationsClocksSetting, "applications_clocks_setting"},
	{nvml.ClocksEventReasonSwPowerCap, "sw_power_cap"},
	{nvml.ClocksThrottleReasonHwSlowdown, "hw_slowdown"},
	{nvml.ClocksEventReasonSyncBoost, "sync_boost"},
	{nvml.ClocksEventReasonSwThermalSlowdown, "sw_thermal_slowdown"},
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "hw_thermal_slowdown"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "hw_power_brake"},
	{nvml.ClocksEventReasonDisplayClockSetting, "display_clock_setting"},
	{nvml.ClocksEventReasonBoardLimit, "board_limit"},
	{nvml.ClocksEventReasonReliability, "reliability"},
}

// throttle asks under the call's older name where the driver does not have the newer.
func (p *prober) throttle() []string {
	symbol, call := "nvmlDeviceGetCurrentClocksEventReasons", p.handle.GetCurrentClocksEventReasons
	if !p.has(symbol) {
		symbol, call = "nvmlDeviceGetCurrentClocksThrottleReasons", p.handle.GetCurrentClocksThrottleReasons
	}
	var bits uint64
	if !p.ask(symbol, "read why clocks are held down", func() (ret nvml.Return) {
		bits, ret = call()
		return ret
	}) {
		return nil
	}
	var names []string
	bits &^= nvml.ClocksEventReasonGpuIdle
	for _, r := range throttleReasons {
		if bits&r.bit != 0 {
			names = append(names, r.name)
		}
		bits &^= r.bit
	}
	if bits != 0 { // of a newer driver
		names = append(names, "other")
	}
	return names
}

// ecc returns nil where ECC is off or the device has none.
func (p *prober) ecc() *device.ECC {
	var e device.ECC
	counts := p.count(&e.Corrected, nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
	counts = p.count(&e.Uncorrected, nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC) || counts
	p.count(&e.UncorrectedAggregate, nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.AGGREGATE_ECC)
	// Rows are remapped from Ampere on, pages retired before; neither has both.
	// A GPU whose MIG instances are in use does not tell of its rows.
	p.ask("nvmlDeviceGetRemappedRows", "read the remapped rows", func() (ret nvml.Return) {
		_, _, e.RemapPending, e.RemapFailed, ret = p.handle.GetRemappedRows()
		return ret
	})
	p.ask("nvmlDeviceGetRetiredPagesPendingStatus", "read the retired pages", func() nvml.Return {
		pending, ret := p.handle.GetRetiredPagesPendingStatus()
		if ret == nvml.SUCCESS && pending == nvml.FEATURE_ENABLED {
			e.RemapPending = true
		}
		return ret
	})
	if !counts && !e.RemapPending && !e.RemapFailed {
		return nil
	}
	return &e
}

func (p *prober) count(into *uint64, kind nvml.MemoryErrorType, span nvml.EccCounterType) bool {
	var n uint64
	ok := p.ask("nvmlDeviceGetTotalEccErrors", "read the ECC errors", func() (ret nvml.Return) {
		n, ret = p.handle.GetTotalEccErrors(kind, span)
		return ret
	})
	if ok {
		*into = n
	}
	return ok
}

// recoveryActions is by value of NVML_FI_DEV_GET_GPU_RECOVERY_ACTION. Source:
// nvmlDeviceGpuRecoveryAction_t in nvml.h.
var recoveryActions = map[nvml.DeviceGpuRecoveryAction]device.RecoveryAction{
	nvml.GPU_RECOVERY_ACTION_NONE:                "",
	nvml.GPU_RECOVERY_ACTION_GPU_RESET:           device.RecoveryReset,
	nvml.GPU_RECOVERY_ACTION_NODE_REBOOT:         device.RecoveryReboot,
	nvml.GPU_RECOVERY_ACTION_DRAIN_P2P:           device.RecoveryDrainP2P,
	nvml.GPU_RECOVERY_ACTION_DRAIN_AND_RESET:     device.RecoveryDrainReset,
	nvml.GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN: device.RecoveryIMEX,
	nvml.GPU_RECOVERY_ACTION_BUS_RESET:           device.RecoveryBusReset,
	nvml.GPU_RECOVERY_ACTION_SYSTEM_REBOOT:       device.RecoverySystemReboot,
}

func (p *prober) recovery() device.RecoveryAction {
	fields := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	if !p.ask("nvmlDeviceGetFieldValues", "read the recovery action", func() nvml.Return {
		if ret := p.handle.GetFieldValues(fields); ret != nvml.SUCCESS {
			return ret
		}
		return nvml.Return(fields[0].NvmlReturn)
	}) {
		return ""
	}
	// The value is an unsigned int (nvmlValue_t.uiVal), as the host orders bytes.
	action, ok := recoveryActions[nvml.DeviceGpuRecoveryAction(binary.NativeEndian.Uint32(fields[0].Value[:]))]
	if !ok {
		return device.RecoveryUnknown
	}
	return action
}

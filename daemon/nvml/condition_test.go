package main

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"gpuqd/daemon/device"
)

// tellAll lets a device tell everything that a driver can.
func tellAll(d *server.Device) {
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 97}, nvml.SUCCESS }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 61, nvml.SUCCESS }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 412_345, nvml.SUCCESS }
	d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 700_000, nvml.SUCCESS }
	d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) {
		return nvml.ClocksEventReasonGpuIdle | nvml.ClocksEventReasonSwPowerCap | nvml.ClocksThrottleReasonHwThermalSlowdown | 1<<40, nvml.SUCCESS
	}
	d.GetTotalEccErrorsFunc = func(kind nvml.MemoryErrorType, span nvml.EccCounterType) (uint64, nvml.Return) {
		switch {
		case span == nvml.AGGREGATE_ECC:
			return 3, nvml.SUCCESS
		case kind == nvml.MEMORY_ERROR_TYPE_CORRECTED:
			return 1, nvml.SUCCESS
		}
		return 2, nvml.SUCCESS
	}
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 5, 6, true, false, nvml.SUCCESS }
	recover1(d, nvml.GPU_RECOVERY_ACTION_DRAIN_AND_RESET)
}

// recover1 lets a device tell one recovery action.
func recover1(d *server.Device, action nvml.DeviceGpuRecoveryAction) {
	d.GetFieldValuesFunc = func(values []nvml.FieldValue) nvml.Return {
		for i := range values {
			if values[i].FieldId == nvml.FI_DEV_GET_GPU_RECOVERY_ACTION {
				binary.NativeEndian.PutUint32(values[i].Value[:], uint32(action))
			}
		}
		return nvml.SUCCESS
	}
}

func TestInventoryTellsHowADeviceFares(t *testing.T) {
	for name, lib := range map[string]*server.Server{"DGXA100": dgxa100.New(), "DGXH100": dgxh100.New(), "DGXH200": dgxh200.New()} {
		t.Run(name, func(t *testing.T) {
			tellAll(complete(lib).Devices[4].(*server.Device))
			r := testSampler(t, lib).inventory()
			want := device.Condition{
				UtilisationPercent: new(97), TemperatureCelsius: new(61),
				PowerWatts: new(412.345), PowerLimitWatts: new(700.0),
				Throttle: []string{"sw_power_cap", "hw_thermal_slowdown", "other"},
				ECC:      &device.ECC{Corrected: 1, Uncorrected: 2, UncorrectedAggregate: 3, RemapPending: true},
				Recovery: device.RecoveryDrainReset,
			}
			if got := r.Devices[4]; !reflect.DeepEqual(got.Condition, want) || got.Sick != "" {
				t.Errorf("device 4 fares as %+v (%s), want %+v", got.Condition, got.Sick, want)
			}
			// The others tell nothing of this, and it costs them nothing.
			if got := r.Devices[3]; !reflect.DeepEqual(got.Condition, device.Condition{}) || got.Sick != "" {
				t.Errorf("device 3 fares as %+v (%s), want nothing", got.Condition, got.Sick)
			}
		})
	}
}

func TestConditionTellsEachRecoveryAction(t *testing.T) {
	for action, want := range map[nvml.DeviceGpuRecoveryAction]device.RecoveryAction{
		nvml.GPU_RECOVERY_ACTION_NONE:                "",
		nvml.GPU_RECOVERY_ACTION_GPU_RESET:           device.RecoveryReset,
		nvml.GPU_RECOVERY_ACTION_NODE_REBOOT:         device.RecoveryReboot,
		nvml.GPU_RECOVERY_ACTION_DRAIN_P2P:           device.RecoveryDrainP2P,
		nvml.GPU_RECOVERY_ACTION_DRAIN_AND_RESET:     device.RecoveryDrainReset,
		nvml.GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN: device.RecoveryIMEX,
		nvml.GPU_RECOVERY_ACTION_BUS_RESET:           device.RecoveryBusReset,
		nvml.GPU_RECOVERY_ACTION_SYSTEM_REBOOT:       device.RecoverySystemReboot,
		99:                                           device.RecoveryUnknown,
	} {
		got := sampleOne(t, func(_ *server.Server, d *server.Device) { recover1(d, action) })
		if got.Recovery != want {
			t.Errorf("action %d is told as %q, want %q", action, got.Recovery, want)
		}
	}
}

func TestConditionTakesRetiredPagesForRows(t *testing.T) {
	got := sampleOne(t, func(_ *server.Server, d *server.Device) {
		d.GetRetiredPagesPendingStatusFunc = func() (nvml.EnableState, nvml.Return) { return nvml.FEATURE_ENABLED, nvml.SUCCESS }
	})
	if got.ECC == nil || !got.ECC.RemapPending {
		t.Errorf("got %+v, want that pages wait to be retired", got.ECC)
	}
}

func TestConditionAsksALostDeviceNothingMore(t *testing.T) {
	got := sampleOne(t, func(_ *server.Server, d *server.Device) {
		tellAll(d)
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
		d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) {
			t.Error("it was asked for its ECC errors")
			return 0, nvml.ERROR_GPU_IS_LOST
		}
	})
	if !strings.Contains(got.Sick, "read the power") || !strings.Contains(got.Sick, "restart the host") {
		t.Errorf("sick as %q, want which call said so, and what to do", got.Sick)
	}
}

// A call that the library lacks would end the process.
func TestConditionMakesNoCallThatTheLibraryLacks(t *testing.T) {
	lib := complete(dgxa100.New())
	lib.LookupSymbolFunc = func(symbol string) error {
		switch symbol {
		case "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetCurrentClocksThrottleReasons":
			return nil
		}
		return nvml.ERROR_FUNCTION_NOT_FOUND
	}
	d := lib.Devices[0].(*server.Device)
	// A mock panics where a call is made that is not set.
	d.Device.GetMigModeFunc, d.Device.GetFieldValuesFunc, d.Device.GetRemappedRowsFunc = nil, nil, nil
	d.Device.GetMPSComputeRunningProcessesFunc, d.Device.GetMemoryInfo_v2Func = nil, nil
	d.Device.GetCurrentClocksEventReasonsFunc, d.Device.GetTotalEccErrorsFunc = nil, nil
	d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) { return nvml.ClocksEventReasonSyncBoost, nvml.SUCCESS }
	got := testSampler(t, lib).inventory().Devices[0]
	if got.Sick != "" || !reflect.DeepEqual(got.Condition, device.Condition{Throttle: []string{"sync_boost"}}) {
		t.Errorf("got %+v (%s), want what the older call tells", got.Condition, got.Sick)
	}
}

func TestMemoryInUseIsWithoutTheDriversOwn(t *testing.T) {
	for name, used := range map[string]uint64{"WhereTheDriverSaysWithout": 70, "WhereTheDriverSaysWith": 100} {
		t.Run(name, func(t *testing.T) {
			got := sampleOne(t, func(_ *server.Server, d *server.Device) {
				total := d.MemoryInfo.Total
				d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
					return nvml.Memory_v2{Total: total, Reserved: 30, Used: used, Free: total - 100}, nvml.SUCCESS
				}
			})
			if got.MemoryUsedBytes != 70 {
				t.Errorf("%d bytes in use, want 70", got.MemoryUsedBytes)
			}
		})
	}
}

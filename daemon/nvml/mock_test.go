package main

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// complete gives a server of the library what it leaves unset: a driver that has no
// processes, no events and no instances, and tells nothing that it need not.
func complete(s *server.Server) *server.Server {
	s.ErrorStringFunc = func(r nvml.Return) string { return r.Error() }
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return &mock.EventSet{}, nvml.SUCCESS }
	s.EventSetFreeFunc = func(nvml.EventSet) nvml.Return { return nvml.SUCCESS }
	for _, d := range s.Devices {
		completeDevice(d.(*server.Device))
	}
	return s
}

const unsupported = nvml.ERROR_NOT_SUPPORTED

func completeDevice(d *server.Device) {
	none := func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
	d.GetComputeRunningProcessesFunc = none
	d.GetGraphicsRunningProcessesFunc = none
	d.GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, unsupported }
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, unsupported }
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_NOT_FOUND }
	d.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return 0, nvml.SUCCESS }

	number := func() (uint32, nvml.Return) { return 0, unsupported }
	d.GetPowerUsageFunc, d.GetEnforcedPowerLimitFunc = number, number
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 0, unsupported }
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, unsupported }
	reasons := func() (uint64, nvml.Return) { return 0, unsupported }
	d.GetCurrentClocksEventReasonsFunc, d.GetCurrentClocksThrottleReasonsFunc = reasons, reasons
	d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, unsupported }
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, unsupported }
	d.GetRetiredPagesPendingStatusFunc = func() (nvml.EnableState, nvml.Return) { return 0, unsupported }
	d.GetFieldValuesFunc = func([]nvml.FieldValue) nvml.Return { return unsupported }
}

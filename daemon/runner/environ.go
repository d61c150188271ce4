package runner

import (
	"slices"
	"strconv"
	"strings"
)

// basePath is the command's PATH where its own environment sets none.
const basePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// The variables by which an attempt's processes are recognised.
const (
	EnvJobID   = "GPUQ_JOB_ID"
	EnvAttempt = "GPUQ_ATTEMPT"
)

// Environ returns the command's whole environment, sorted: a small base, over
// it the user's, over that what gpuqd itself sets, which a user cannot change.
// Nothing of the calling process's environment is in it.
func (in *Intent) Environ() []string {
	name, home, shell := in.login()
	env := map[string]string{
		"PATH": basePath, "LANG": "C.UTF-8", "SHELL": shell,
		"HOME": home, "USER": name, "LOGNAME": name,
	}
	for k, v := range in.Env {
		env[k] = v
	}
	env[EnvJobID] = string(in.JobID)
	env[EnvAttempt] = strconv.Itoa(in.Attempt)
	env["GPUQ_GPUS"] = strconv.Itoa(len(in.Devices))
	env["GPUQ_WORKDIR"] = in.Workdir
	if in.GPUMemoryBytes > 0 {
		env["GPUQ_GPU_MEMORY_BYTES"] = strconv.FormatUint(in.GPUMemoryBytes, 10)
	}
	// Empty means no device to CUDA; unset would mean all of them.
	env["CUDA_VISIBLE_DEVICES"] = strings.Join(in.Devices, ",")
	env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

package device

import (
	"fmt"
	"slices"
)

// XIDClass says whom an XID concerns, and so what becomes of the device.
type XIDClass string

// The classes of XIDs.
const (
	XIDApplication XIDClass = "application" // the job's own doing as a rule: the device stays well
	XIDDevice      XIDClass = "device"      // the device cannot be trusted: it is out, and what runs on it ends
	XIDHost        XIDClass = "host"        // as device, for every device of the host
	XIDNotice      XIDClass = "notice"      // told and counted, and nothing else: no job is the worse for it
	// XIDUnknown is that of a code without a row: the device takes nothing new until
	// somebody has looked, and what runs on it may end by itself.
	XIDUnknown XIDClass = "unknown"
)

// XID is what is known of one code of NVIDIA's kernel driver.
type XID struct {
	Code   int
	Name   string
	Class  XIDClass
	Remedy string // for a person
	Source string
}

// XIDs returns the table, by code. The caller owns it.
func XIDs() []XID { return slices.Clone(xids) }

// LookUpXID returns the row of a code. One that has none is of the class unknown.
func LookUpXID(code int) XID {
	i, ok := slices.BinarySearchFunc(xids, code, func(x XID, code int) int { return x.Code - code })
	if !ok {
		return XID{Code: code, Name: "a code that gpuqd does not know", Class: XIDUnknown, Remedy: remedyUnknown, Source: "none"}
	}
	return xids[i]
}

// String names an XID for people: code and meaning.
func (x XID) String() string { return fmt.Sprintf("XID %d (%s)", x.Code, x.Name) }

// Remedies, for people. Those of the class device are followed by the way in which
// the device comes back.
const (
	remedyApp = "as a rule the program's own mistake: run it under compute-sanitizer or cuda-gdb; " +
		"the same from different programs on one device only is the device's"
	remedyEngine   = "run the program again; the same from different programs on one device only is the device's"
	remedyLeft     = "it follows from another event or from the end of a program: look for the XID before it in the kernel log"
	remedyDriver   = "report it to NVIDIA with nvidia-bug-report.sh if it comes again"
	remedyReset    = "reset the device (nvidia-smi --gpu-reset, with gpuqd stopped) or reboot the host; if it comes again, have it diagnosed"
	remedyMemory   = "reset the device (nvidia-smi --gpu-reset, with gpuqd stopped) or reboot the host, which retires the bad memory; replace it if it comes again"
	remedyReplace  = "no spare memory is left to retire the bad: have the device replaced"
	remedyReboot   = "reboot the host; if it comes again, look at power, riser and slot, and have the device replaced"
	remedyLink     = "see nvidia-smi nvlink -e; reset the devices at both ends or reboot the host, then look at the link's hardware"
	remedyPower    = "connect the auxiliary power of the board"
	remedyVersion  = "bring the drivers of host and guest, or the firmware, to releases that go together"
	remedyVM       = "restart the virtual machine, or reboot the host"
	remedyECC      = "switch ECC on, so that bad rows can be remapped, and reboot the host"
	remedyWear     = "the InfoROM's write protection is on (nvflash); nothing is to be done for jobs"
	remedyNothing  = "nothing is to be done now"
	remedyRecovery = "it sums up another XID; the device shows the action that it needs"
	remedyWatch    = "watch the device: XID 48 or 64 may follow"
	remedyUnknown  = "look the code up at docs.nvidia.com/deploy/xid-errors, and in the kernel log"
)

// Sources.
const (
	// catalog is NVIDIA's "Xid Errors", the page "Analyzing Xid Errors with the Xid
	// Catalog": the column "Resolution Bucket (Immediate Action)" decides. RESTART_APP,
	// and IGNORE where a program has failed, are of the class application; RESET_GPU,
	// RESTART_BM and the workflows for hardware of the class device; RESTART_VM and
	// CHECK_UVM of the class host; IGNORE otherwise is a notice. Two differ, since an
	// exit 0 over memory that was wrong is no success, and memory that cannot be
	// retired stays in use: 94, which the catalog lets go on until a reset is
	// convenient, and 157 and 161, are of the class device.
	catalog = "Xid catalog (docs.nvidia.com/deploy/xid-errors)"
	// nverror names codes that the catalog calls unused, or older GPUs alone report.
	nverror = "nverror.h (NVIDIA/open-gpu-kernel-modules) and the Xid catalog for Volta and older"
	// plugin agrees with the catalog on what is the application's.
	plugin = "Xid catalog; health.go of NVIDIA/k8s-device-plugin ignores it, too"
	// memory is the guide to bad memory.
	memory = "Xid catalog; GPU Memory Error Management (docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt)"
)

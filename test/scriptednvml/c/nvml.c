// An NVML library that does what a script says: the file "script" beside it, which
// it reads again whenever that was replaced. scriptednvml.go writes it and says what
// its lines mean.
//
// It has the calls that gpuqd-device makes, as nvml.h declares them. With
// OLD_DRIVER it lacks those that came with later drivers. It is one file, though a
// long one: the calls are short and share one script.
#define _GNU_SOURCE
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nvml.h"

enum { LINES_MAX = 4096, FIELDS_MAX = 32, DEVICES_MAX = 256, TICK_US = 5000 };

struct line {
	int n;
	char *field[FIELDS_MAX]; // the first is what the line is about, the rest are key=value
};

struct nvmlDevice_st {
	char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
};

struct nvmlEventSet_st {
	unsigned long long heard; // the number of the last event that is over
	unsigned long long told;  // how many of the next one's count were delivered
	int n;
	const struct nvmlDevice_st *device[DEVICES_MAX];
	unsigned long long types[DEVICES_MAX];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; // guards what follows
static struct line lines[LINES_MAX];
static int line_count;
static char *text;
static struct stat read_as;
static struct nvmlDevice_st *known[DEVICES_MAX]; // handles stay good
static int known_count;

// beside writes the path of a file beside the library.
static void beside(char *path, size_t size, const char *name)
{
	Dl_info info;
	if (!dladdr((void *)beside, &info))
		abort();
	const char *slash = strrchr(info.dli_fname, '/');
	if (!slash)
		abort();
	snprintf(path, size, "%.*s/%s", (int)(slash - info.dli_fname), info.dli_fname, name);
}

static void parse(void)
{
	line_count = 0;
	char *rest = text, *line;
	while ((line = strsep(&rest, "\n")) && line_count < LINES_MAX) {
		struct line *l = &lines[line_count];
		char *field;
		for (l->n = 0; l->n < FIELDS_MAX && (field = strsep(&line, "\t"));)
			l->field[l->n++] = field;
		if (l->n > 0 && l->field[0][0])
			line_count++;
	}
}

// reload reads the script if it is another file than last time.
static void reload(void)
{
	char path[PATH_MAX];
	struct stat now;
	beside(path, sizeof path, "script");
	FILE *f = fopen(path, "r");
	if (!f)
		return;
	if (fstat(fileno(f), &now) || (now.st_ino == read_as.st_ino && now.st_size == read_as.st_size &&
		now.st_mtim.tv_sec == read_as.st_mtim.tv_sec && now.st_mtim.tv_nsec == read_as.st_mtim.tv_nsec)) {
		fclose(f);
		return;
	}
	free(text);
	text = calloc(1, now.st_size + 1);
	if (fread(text, 1, now.st_size, f) != (size_t)now.st_size)
		abort();
	fclose(f);
	read_as = now;
	parse();
}

static const char *get(const struct line *l, const char *key)
{
	size_t length = strlen(key);
	for (int i = 1; i < l->n; i++)
		if (!strncmp(l->field[i], key, length) && l->field[i][length] == '=')
			return l->field[i] + length + 1;
	return NULL;
}

static unsigned long long number(const struct line *l, const char *key, unsigned long long otherwise)
{
	const char *value = get(l, key);
	return value ? strtoull(value, NULL, 0) : otherwise;
}

static int is(const struct line *l, const char *about) { return !strcmp(l->field[0], about); }

static int equal(const char *a, const char *b) { return a && b && !strcmp(a, b); }

// behaviour finds a line that says what a call does instead of its work.
static struct line *behaviour(const char *call, const char *uuid)
{
	for (int i = 0; i < line_count; i++) {
		struct line *l = &lines[i];
		const char *name = get(l, "call"), *on = get(l, "on");
		if (is(l, "call") && (!name || !strcmp(name, call)) && (!on || equal(on, uuid)))
			return l;
	}
	return NULL;
}

// mark makes the file "hanging" beside the library, or removes it.
static void mark(int hanging)
{
	char path[PATH_MAX];
	beside(path, sizeof path, "hanging");
	if (!hanging) {
		unlink(path);
		return;
	}
	FILE *f = fopen(path, "w");
	if (!f)
		abort();
	fclose(f);
}

// enter begins a call: NVML_SUCCESS leaves the mutex locked.
static nvmlReturn_t enter(const char *call, const char *uuid)
{
	int hanging = 0;
	pthread_mutex_lock(&mutex);
	for (;;) {
		reload();
		struct line *l = behaviour(call, uuid);
		const char *does = l ? get(l, "does") : NULL;
		if (hanging != equal(does, "hang"))
			mark(hanging = !hanging);
		if (!l)
			return NVML_SUCCESS;
		if (equal(does, "crash"))
			*(volatile int *)NULL = 0;
		if (!equal(does, "hang")) {
			nvmlReturn_t ret = number(l, "return", NVML_ERROR_UNKNOWN);
			pthread_mutex_unlock(&mutex);
			return ret;
		}
		pthread_mutex_unlock(&mutex);
		usleep(TICK_US);
		pthread_mutex_lock(&mutex);
	}
}

static nvmlReturn_t leave(nvmlReturn_t ret)
{
	pthread_mutex_unlock(&mutex);
	return ret;
}

// find returns the line about a device or an instance.
static struct line *find(const char *uuid)
{
	for (int i = 0; i < line_count; i++)
		if ((is(&lines[i], "device") || is(&lines[i], "instance")) && equal(get(&lines[i], "uuid"), uuid))
			return &lines[i];
	return NULL;
}

static nvmlDevice_t handle(const char *uuid)
{
	nvmlDevice_t d = {NULL};
	for (int i = 0; i < known_count; i++)
		if (!strcmp(known[i]->uuid, uuid)) {
			d.handle = known[i];
			return d;
		}
	if (known_count == DEVICES_MAX)
		abort();
	d.handle = known[known_count++] = calloc(1, sizeof *known[0]);
	snprintf(d.handle->uuid, sizeof d.handle->uuid, "%s", uuid);
	return d;
}

// about begins a call about a device, as enter does.
static nvmlReturn_t about(const char *call, nvmlDevice_t d, struct line **l)
{
	nvmlReturn_t ret = enter(call, d.handle->uuid);
	if (ret != NVML_SUCCESS)
		return ret;
	*l = find(d.handle->uuid);
	if (!*l)
		return leave(NVML_ERROR_GPU_IS_LOST);
	return NVML_SUCCESS;
}

#define ABOUT(d) \
	struct line *l; \
	nvmlReturn_t begun = about(__func__, d, &l); \
	if (begun != NVML_SUCCESS) \
		return begun

// TELL answers with a number of the line; without it the device does not tell.
#define TELL(target, key) \
	do { \
		if (!get(l, key)) \
			return leave(NVML_ERROR_NOT_SUPPORTED); \
		(target) = number(l, key, 0); \
	} while (0)

const char *nvmlErrorString(nvmlReturn_t ret)
{
	switch (ret) {
	case NVML_SUCCESS: return "Success";
	case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
	case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
	case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	case NVML_ERROR_RESET_REQUIRED: return "GPU requires reset";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
	default: return "Unknown Error";
	}
}

#define NOTHING(name) \
	nvmlReturn_t name(void) \
	{ \
		nvmlReturn_t ret = enter(__func__, NULL); \
		return ret == NVML_SUCCESS ? leave(ret) : ret; \
	}
NOTHING(nvmlInit_v2)
NOTHING(nvmlShutdown)

static int is_device(const struct line *l, void *unused) { (void)unused; return is(l, "device"); }

// nth returns the nth of the lines that match, and with n below 0 counts them.
static struct line *nth(int n, int (*match)(const struct line *, void *), void *with, unsigned int *count)
{
	unsigned int found = 0;
	for (int i = 0; i < line_count; i++)
		if (match(&lines[i], with) && (int)found++ == n)
			return &lines[i];
	if (count)
		*count = found;
	return NULL;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	nvmlReturn_t ret = enter(__func__, NULL);
	if (ret != NVML_SUCCESS)
		return ret;
	nth(-1, is_device, NULL, count);
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *d)
{
	// Which device it is decides whether this call is scripted.
	pthread_mutex_lock(&mutex);
	reload();
	struct line *l = nth(index, is_device, NULL, NULL);
	nvmlDevice_t found = {NULL};
	if (l)
		found = handle(get(l, "uuid"));
	pthread_mutex_unlock(&mutex);
	if (!found.handle)
		return NVML_ERROR_INVALID_ARGUMENT;
	nvmlReturn_t ret = enter(__func__, found.handle->uuid);
	if (ret != NVML_SUCCESS)
		return ret;
	*d = found;
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *uuid, unsigned int length)
{
	ABOUT(d);
	snprintf(uuid, length, "%s", d.handle->uuid);
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *name, unsigned int length)
{
	ABOUT(d);
	snprintf(name, length, "%s", get(l, "name"));
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *pci)
{
	ABOUT(d);
	memset(pci, 0, sizeof *pci);
	pci->bus = number(l, "bus", 0);
	snprintf(pci->busId, sizeof pci->busId, NVML_DEVICE_PCI_BUS_ID_FMT, 0, pci->bus, 0);
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned int *minor)
{
	ABOUT(d);
	TELL(*minor, "minor");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor)
{
	ABOUT(d);
	TELL(*major, "major");
	TELL(*minor, "capability_minor");
	return leave(NVML_SUCCESS);
}

// alive reports whether a process is there and more than a zombie, which uses no
// device.
static int alive(unsigned int pid)
{
	char path[64], stat[512];
	snprintf(path, sizeof path, "/proc/%u/stat", pid);
	FILE *f = fopen(path, "r");
	if (!f)
		return 0;
	size_t n = fread(stat, 1, sizeof stat - 1, f);
	fclose(f);
	stat[n] = 0;
	char *end = strrchr(stat, ')');
	return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

// uses reports whether a line is about a live process on a device. One on an
// instance is on its GPU too.
static int uses(const struct line *l, void *uuid)
{
	if (!is(l, "process") || !alive(number(l, "pid", 0)))
		return 0;
	if (equal(get(l, "on"), uuid))
		return 1;
	struct line *on = find(get(l, "on"));
	return on && is(on, "instance") && equal(get(on, "gpu"), uuid);
}

static unsigned long long allocated(nvmlDevice_t d, const struct line *l)
{
	unsigned long long bytes = number(l, "used", 0);
	for (int i = 0; i < line_count; i++)
		if (uses(&lines[i], d.handle->uuid))
			bytes += number(&lines[i], "memory", 0);
	return bytes;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
{
	ABOUT(d);
	m->total = number(l, "memory", 0);
	m->used = allocated(d, l) + number(l, "reserved", 0);
	m->free = m->total - m->used;
	return leave(NVML_SUCCESS);
}

// PROCESSES answers a call that lists processes.
#define PROCESSES(name, type) \
	nvmlReturn_t name(nvmlDevice_t d, unsigned int *count, type *infos) \
	{ \
		ABOUT(d); \
		unsigned int room = *count; \
		nth(-1, uses, d.handle->uuid, count); \
		if (*count > room) \
			return leave(NVML_ERROR_INSUFFICIENT_SIZE); \
		unsigned int n = 0; \
		for (int i = 0; i < line_count && n < *count; i++) \
			if (uses(&lines[i], d.handle->uuid)) { \
				memset(&infos[n], 0xff, sizeof infos[n]); \
				infos[n].pid = number(&lines[i], "pid", 0); \
				infos[n++].usedGpuMemory = number(&lines[i], "memory", 0); \
			} \
		*count = n; \
		return leave(NVML_SUCCESS); \
	}

// NO_PROCESSES lists none of a kind that is not scripted.
#define NO_PROCESSES(name, type) \
	nvmlReturn_t name(nvmlDevice_t d, unsigned int *count, type *infos) \
	{ \
		ABOUT(d); \
		(void)infos; \
		*count = 0; \
		return leave(NVML_SUCCESS); \
	}

#ifdef OLD_DRIVER
PROCESSES(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
#else
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m)
{
	ABOUT(d);
	if (m->version != nvmlMemory_v2)
		return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	m->total = number(l, "memory", 0);
	m->reserved = number(l, "reserved", 0);
	m->used = allocated(d, l);
	m->free = m->total - m->reserved - m->used;
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned int *current, unsigned int *pending)
{
	ABOUT(d);
	TELL(*current, "mig");
	*pending = *current;
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned int *count)
{
	ABOUT(d);
	*count = number(l, "mig", 0) ? 7 : 0;
	return leave(NVML_SUCCESS);
}

static int is_instance_of(const struct line *l, void *uuid)
{
	return is(l, "instance") && equal(get(l, "gpu"), uuid);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned int index, nvmlDevice_t *mig)
{
	ABOUT(d);
	l = nth(index, is_instance_of, d.handle->uuid, NULL);
	if (!l)
		return leave(NVML_ERROR_NOT_FOUND);
	*mig = handle(get(l, "uuid"));
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t d, unsigned int *id)
{
	ABOUT(d);
	TELL(*id, "gi");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t d, unsigned int *id)
{
	ABOUT(d);
	TELL(*id, "ci");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t d, unsigned long long *reasons)
{
	ABOUT(d);
	TELL(*reasons, "throttle");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t d, unsigned int *corrected, unsigned int *uncorrected,
	unsigned int *pending, unsigned int *failed)
{
	ABOUT(d);
	TELL(*pending, "remap_pending");
	TELL(*failed, "remap_failed");
	*corrected = *uncorrected = 0;
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t d, int count, nvmlFieldValue_t *values)
{
	ABOUT(d);
	for (int i = 0; i < count; i++) {
		values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
		if (values[i].fieldId != NVML_FI_DEV_GET_GPU_RECOVERY_ACTION || !get(l, "recovery"))
			continue;
		values[i].nvmlReturn = NVML_SUCCESS;
		values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		values[i].value.uiVal = number(l, "recovery", 0);
	}
	return leave(NVML_SUCCESS);
}
#endif

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *rates)
{
	ABOUT(d);
	TELL(rates->gpu, "utilisation");
	rates->memory = 0;
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
	ABOUT(d);
	(void)sensor;
	TELL(*celsius, "temperature");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *milliwatts)
{
	ABOUT(d);
	TELL(*milliwatts, "power_milliwatts");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned int *milliwatts)
{
	ABOUT(d);
	TELL(*milliwatts, "power_limit_milliwatts");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
	unsigned long long *count)
{
	ABOUT(d);
	if (counter == NVML_AGGREGATE_ECC)
		TELL(*count, "ecc_aggregate");
	else if (type == NVML_MEMORY_ERROR_TYPE_CORRECTED)
		TELL(*count, "ecc_corrected");
	else
		TELL(*count, "ecc_uncorrected");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t d, nvmlEnableState_t *pending)
{
	ABOUT(d);
	TELL(*pending, "retired_pending");
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t d, unsigned long long *types)
{
	ABOUT(d);
	*types = number(l, "events", nvmlEventTypeXidCriticalError | nvmlEventTypeDoubleBitEccError);
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set)
{
	ABOUT(d);
	if (set.handle->n == DEVICES_MAX)
		return leave(NVML_ERROR_UNKNOWN);
	set.handle->device[set.handle->n] = d.handle;
	set.handle->types[set.handle->n++] = types;
	return leave(NVML_SUCCESS);
}

// What happened before is not told.
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	nvmlReturn_t ret = enter(__func__, NULL);
	if (ret != NVML_SUCCESS)
		return ret;
	set->handle = calloc(1, sizeof *set->handle);
	for (int i = 0; i < line_count; i++)
		if (is(&lines[i], "event") && number(&lines[i], "id", 0) > set->handle->heard)
			set->handle->heard = number(&lines[i], "id", 0);
	return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	nvmlReturn_t ret = enter(__func__, NULL);
	if (ret != NVML_SUCCESS)
		return ret;
	free(set.handle);
	return leave(NVML_SUCCESS);
}

// deliver takes the next event that a set is to hear; 0 is none.
static int deliver(struct nvmlEventSet_st *set, nvmlEventData_t *data)
{
	for (int i = 0; i < line_count; i++) {
		struct line *l = &lines[i];
		if (!is(l, "event") || number(l, "id", 0) <= set->heard)
			continue;
		unsigned long long type = number(l, "type", 0);
		for (int j = 0; j < set->n; j++) {
			if (!equal(get(l, "on"), set->device[j]->uuid) || !(set->types[j] & type))
				continue;
			data->device.handle = (struct nvmlDevice_st *)set->device[j];
			data->eventType = type;
			data->eventData = number(l, "xid", 0);
			data->gpuInstanceId = number(l, "gi", 0xffffffff);
			data->computeInstanceId = number(l, "ci", 0xffffffff);
			if (++set->told >= number(l, "count", 1)) {
				set->heard = number(l, "id", 0);
				set->told = 0;
			}
			return 1;
		}
		set->heard = number(l, "id", 0); // nobody listens for it
	}
	return 0;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
	for (long left = 1000L * timeout_ms;; left -= TICK_US) {
		nvmlReturn_t ret = enter(__func__, NULL);
		if (ret != NVML_SUCCESS)
			return ret;
		if (deliver(set.handle, data))
			return leave(NVML_SUCCESS);
		leave(NVML_SUCCESS);
		if (left <= 0)
			return NVML_ERROR_TIMEOUT;
		usleep(TICK_US);
	}
}

/*
 * A libcuda.so.1 that knows the devices of the file "devices" beside it, of those
 * the ones in CUDA_VISIBLE_DEVICES, and notes in "use/PID" which one a process has
 * taken how much memory of. A file "fault-sees-all" makes it ignore the variable,
 * "fault-foreign-is-harmed" lets what no job has started come to harm.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { devices_max = 16, name_max = 64 };

static char directory[4096], visible[devices_max][name_max];
static int count, current = -1;

static FILE *open_beside(const char *name, const char *how) {
	char path[8192];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return fopen(path, how);
}

int cuInit(unsigned int flags) {
	const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
	char name[name_max];
	Dl_info self;
	FILE *file;

	(void)flags;
	if (dladdr((void *)cuInit, &self) == 0)
		return 999;
	snprintf(directory, sizeof directory, "%s", self.dli_fname);
	*strrchr(directory, '/') = '\0';
	if ((file = open_beside("fault-sees-all", "r")) != NULL) {
		fclose(file);
		wanted = NULL;
	}
	if ((file = open_beside("devices", "r")) == NULL)
		return 999;
	while (count < devices_max && fscanf(file, "%63s", name) == 1)
		if (wanted == NULL || strstr(wanted, name) != NULL)
			strcpy(visible[count++], name);
	fclose(file);
	return count == 0 ? 100 : 0;
}

int cuDeviceGetCount(int *n) {
	*n = count;
	return 0;
}

int cuDeviceGet(int *device, int i) {
	*device = i;
	return i < count ? 0 : 101;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
	const char *text = visible[device] + strlen("GPU-");
	for (int b = 0; b < 16; b++) {
		unsigned int byte;
		if (*text == '-')
			text++;
		if (sscanf(text, "%2x", &byte) != 1)
			return 1;
		uuid[b] = (unsigned char)byte;
		text += 2;
	}
	return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
	current = device;
	*context = visible[device];
	return 0;
}

int cuCtxSetCurrent(void *context) { return context == visible[current] ? 0 : 201; }

int cuMemAlloc_v2(unsigned long long *memory, size_t bytes) {
	char made[8192], whole[8192]; /* the reader must not meet half a file */
	FILE *file;
	snprintf(made, sizeof made, "%s/use/.%ld", directory, (long)getpid());
	snprintf(whole, sizeof whole, "%s/use/%ld", directory, (long)getpid());
	if (current < 0 || (file = fopen(made, "w")) == NULL)
		return 2;
	fprintf(file, "%s %zu\n", visible[current], bytes);
	fclose(file);
	*memory = 4096;
	return rename(made, whole) == 0 ? 0 : 2;
}

int cuMemsetD8_v2(unsigned long long memory, unsigned char value, size_t bytes) {
	(void)value, (void)bytes;
	return memory == 4096 ? 0 : 1;
}

int cuCtxSynchronize(void) { return 0; }

int cuMemFree_v2(unsigned long long memory) {
	FILE *fault = open_beside("fault-foreign-is-harmed", "r");
	if (fault != NULL) {
		fclose(fault);
		if (getenv("GPUQ_JOB_ID") == NULL)
			return 700;
	}
	return memory == 4096 ? 0 : 1;
}

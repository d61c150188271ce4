/*
 * gpuq-gpu-payload is a CUDA job in small: what make gpu-check runs on a device.
 * It needs no CUDA toolkit, neither to be built nor to run: the driver's library is
 * opened at run time, and of it only what has long been there is called.
 *
 *   gpuq-gpu-payload see                      say which devices there are
 *   gpuq-gpu-payload hold BYTES FILE          and take memory of the first until FILE is there
 *   gpuq-gpu-payload leave BYTES FILE         leave such a process behind, in a session of its own
 *   gpuq-gpu-payload leave-and-wait BYTES FILE   and end only when FILE is there
 *
 * What it prints, one word and its values a line: "devices N", "device UUID" for
 * each, "holding BYTES PID", "left PID". No process of it lives longer than
 * lifetime_seconds. Exit code 1: CUDA refused something; 2: usage; 3: no libcuda.
 *
 * Source: CUDA Driver API; the names with _v2 are what cuda.h makes of those without.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { success = 0, error_no_device = 100, uuid_bytes = 16, lifetime_seconds = 120 };

static void die(int code, const char *format, ...) {
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(code);
}

/* say prints one line, which its reader may be waiting for. */
static void say(const char *format, ...) {
	va_list args;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	if (fflush(stdout) != 0)
		exit(1);
}

static void *library;

static void *symbol(const char *name) {
	void *found = dlsym(library, name);
	if (found == NULL)
		die(3, "libcuda.so.1 has no %s", name);
	return found;
}

/* must ends the program where CUDA refused. */
static void must(const char *what, int result) {
	const char *name = NULL;
	int (*get_name)(int, const char **);
	if (result == success)
		return;
	*(void **)&get_name = dlsym(library, "cuGetErrorName");
	if (get_name == NULL || get_name(result, &name) != success || name == NULL)
		name = "unknown";
	die(1, "%s: CUDA error %d (%s)", what, result, name);
}

/* see says which devices there are, and returns how many. */
static int see(void) {
	int (*init)(unsigned int);
	int (*get_count)(int *);
	int (*get)(int *, int);
	int (*get_uuid)(unsigned char *, int);
	int count = 0, result;

	library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
	if (library == NULL)
		die(3, "%s; is the NVIDIA driver installed?", dlerror());
	*(void **)&init = symbol("cuInit");
	*(void **)&get_count = symbol("cuDeviceGetCount");
	*(void **)&get = symbol("cuDeviceGet");
	/* Of a MIG instance the second version tells its own UUID, the first its GPU's. */
	*(void **)&get_uuid = dlsym(library, "cuDeviceGetUuid_v2");
	if (get_uuid == NULL)
		*(void **)&get_uuid = symbol("cuDeviceGetUuid");

	result = init(0);
	if (result != error_no_device) {
		must("cuInit", result);
		must("cuDeviceGetCount", get_count(&count));
	}
	say("devices %d", count);
	for (int i = 0; i < count; i++) {
		unsigned char uuid[uuid_bytes];
		char text[2 * uuid_bytes + 5], *at = text;
		int device;
		must("cuDeviceGet", get(&device, i));
		must("cuDeviceGetUuid", get_uuid(uuid, device));
		for (int b = 0; b < uuid_bytes; b++)
			at += sprintf(at, "%s%02x", b == 4 || b == 6 || b == 8 || b == 10 ? "-" : "", uuid[b]);
		say("device %s", text);
	}
	return count;
}

/* await returns when the file is there. The alarm bounds it. */
static void await(const char *file) {
	while (access(file, F_OK) != 0)
		usleep(20 * 1000);
}

/* hold takes memory of the first device, writes to it, and keeps it. */
static void hold(size_t bytes, const char *file) {
	int (*get)(int *, int);
	int (*retain)(void **, int);
	int (*set_current)(void *);
	int (*allocate)(unsigned long long *, size_t);
	int (*set)(unsigned long long, unsigned char, size_t);
	int (*synchronize)(void);
	int (*release)(unsigned long long);
	unsigned long long memory;
	void *context;
	int device;

	if (see() == 0)
		die(1, "there is no device to take memory of");
	*(void **)&get = symbol("cuDeviceGet");
	*(void **)&retain = symbol("cuDevicePrimaryCtxRetain");
	*(void **)&set_current = symbol("cuCtxSetCurrent");
	*(void **)&allocate = symbol("cuMemAlloc_v2");
	*(void **)&set = symbol("cuMemsetD8_v2");
	*(void **)&synchronize = symbol("cuCtxSynchronize");
	*(void **)&release = symbol("cuMemFree_v2");
	must("cuDeviceGet", get(&device, 0));
	must("cuDevicePrimaryCtxRetain", retain(&context, device));
	must("cuCtxSetCurrent", set_current(context));
	must("cuMemAlloc", allocate(&memory, bytes));
	must("cuMemsetD8", set(memory, 0x5a, bytes));
	must("cuCtxSynchronize", synchronize());
	say("holding %zu %ld", bytes, (long)getpid());
	await(file);
	must("cuMemFree", release(memory));
}

/*
 * leave starts a process that nobody is to find by its parent or its session, and
 * waits until it holds its memory. CUDA is not begun before a fork: it does not
 * survive one.
 */
static void leave(size_t bytes, const char *file) {
	int ready[2], status;
	char line[256];
	pid_t middle;
	FILE *words;

	if (pipe(ready) != 0 || (middle = fork()) < 0)
		die(1, "cannot fork");
	if (middle == 0) {
		pid_t left;
		if (setsid() < 0 || (left = fork()) < 0)
			_exit(1);
		if (left > 0)
			_exit(0);
		alarm(lifetime_seconds);
		close(ready[0]);
		if (dup2(ready[1], STDOUT_FILENO) < 0)
			_exit(1);
		close(ready[1]);
		hold(bytes, file);
		exit(0);
	}
	close(ready[1]);
	if (waitpid(middle, &status, 0) != middle || status != 0)
		die(1, "cannot leave a process behind");
	if ((words = fdopen(ready[0], "r")) == NULL)
		die(1, "cannot read from a pipe");
	while (fgets(line, sizeof line, words) != NULL) {
		long pid;
		size_t held;
		line[strcspn(line, "\n")] = '\0';
		say("%s", line);
		if (sscanf(line, "holding %zu %ld", &held, &pid) == 2) {
			say("left %ld", pid);
			return; /* the pipe stays open: the other end may still write */
		}
	}
	die(1, "the process that was to be left behind has ended");
}

int main(int argc, char **argv) {
	const char *mode = argc > 1 ? argv[1] : "";
	char *rest = NULL;
	size_t bytes = argc > 2 ? strtoull(argv[2], &rest, 10) : 0;
	int complete = argc == 4 && bytes > 0 && *rest == '\0';

	alarm(lifetime_seconds);
	if (argc == 2 && strcmp(mode, "see") == 0) {
		see();
	} else if (complete && strcmp(mode, "hold") == 0) {
		hold(bytes, argv[3]);
	} else if (complete && strcmp(mode, "leave") == 0) {
		leave(bytes, argv[3]);
	} else if (complete && strcmp(mode, "leave-and-wait") == 0) {
		leave(bytes, argv[3]);
		await(argv[3]);
	} else {
		die(2, "usage: gpuq-gpu-payload see | (hold | leave | leave-and-wait) BYTES FILE");
	}
	return 0;
}

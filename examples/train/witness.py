"""A witness for tests of the queue: what this payload did, in a file of its own.

The queue never reads or writes the file, so it can be held against what the
queue says: did the job run, how often, did two attempts overlap, which result?
"""

import datetime
import json
import os
import time


class Witness:
    """Appends JSON lines to one file that any number of jobs may share."""

    def __init__(self, path):
        self._path = path  # None writes nothing

    def record(self, event, **facts):
        """Appends one line in a single write and syncs it. Raises OSError.

        `boottime` is CLOCK_BOOTTIME in seconds: unlike `time` it never jumps, so
        it orders the lines of one machine.
        """
        if self._path is None:
            return
        attempt = os.environ.get("GPUQ_ATTEMPT")
        line = json.dumps({
            "event": event,
            "job_id": os.environ.get("GPUQ_JOB_ID"),
            "attempt": int(attempt) if attempt and attempt.isdecimal() else attempt,
            "pid": os.getpid(),
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
            "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
            "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
            **facts,
        }).encode() + b"\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.write(handle, line) != len(line):
                raise OSError(f"{self._path}: only a part of the line was written")
            os.fsync(handle)
        finally:
            os.close(handle)

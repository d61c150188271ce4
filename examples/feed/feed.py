#!/usr/bin/env python3
"""Feeds jobs to the queue as lines come in on stdin, for as long as they come.

  producer | feed.py --name images -- ./resize.sh      each line is the last argument of a job
  producer | feed.py --name images                     each line is a spec, one JSON object

Line N gets the key "NAME/N": a line that is fed again is the same job. So after
any trouble feed the same lines again, or those that are left, with --first. UUIDs
come on stdout, in order, the rest on stderr. Exit code 0: every line is confirmed;
1: some were refused; 130: interrupted, and what is said to be confirmed is.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
import tomllib

OVER = ("succeeded", "failed", "killed", "dead")
LATER = ("unavailable", "unknown_outcome", "no_host")  # the same may be asked again


class Interrupted(Exception):
    pass


class Refused(Exception):
    pass


class Stop:
    """SIGINT and SIGTERM: at once where the feed only waits, else after the line that is under way."""

    def __init__(self):
        self.asked = self.waiting = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.signalled)

    def signalled(self, *_):
        self.asked = True
        if self.waiting:
            raise Interrupted

    def wait(self, call, *args):
        if self.asked:
            raise Interrupted
        self.waiting = True
        try:
            return call(*args)
        finally:
            self.waiting = False


class Feed:
    def __init__(self, options, sockets):
        self.options, self.sockets, self.stop = options, sockets, Stop()
        self.line = options.first - 1  # the last one that is settled
        self.confirmed = self.known = self.refused = 0
        self.open = []  # the jobs that are not over, as far as is known
        self.told = time.monotonic()

    def run(self, lines):
        while (text := self.stop.wait(lines.readline)) != "":
            if text.strip():
                self.submit(self.line + 1, text.strip())
            self.line += 1
            self.hold_back()

    def submit(self, number, text):
        try:
            spec = json.loads(text) if not self.options.command else {
                "command": self.options.command + [text], "gpus": self.options.gpus}
            spec.setdefault("key", f"{self.options.name}/{number}")
            reply = self.ask("submit", {"schema": 1, "spec": spec})
        except (Refused, ValueError, AttributeError) as e:
            self.refused += 1
            say(f"line {number} refused: {e}")
            return
        self.confirmed += 1
        self.known += not reply["created"]
        self.open.append(reply["id"])
        print(reply["id"], flush=True)

    def hold_back(self):
        """The back-pressure: reads on when fewer than --ahead jobs are not over."""
        while len(self.open) >= self.options.ahead:
            rows = self.stop.wait(self.ask, "states", {"ids": self.open, "wait": "5s"})["jobs"]
            self.open = [row["id"] for row in rows if row["state"] not in OVER]
            self.progress()
        self.progress()

    def ask(self, verb, args):
        """Asks until a daemon has done it or refused it; asking twice does no harm."""
        pause = 0.1
        while True:
            for path in self.sockets:
                try:
                    answer = once(path, verb, args)
                    if "error" not in answer:
                        return answer["data"]
                    reason = answer["error"]["message"]
                    if answer["error"]["code"] not in LATER:
                        raise Refused(reason)
                except (OSError, json.JSONDecodeError) as e:
                    reason = f"{path}: {e}"
            say(f"nobody takes it now, trying again: {reason}")
            self.stop.wait(time.sleep, pause)
            pause = min(2 * pause, 10)

    def progress(self):
        if time.monotonic() - self.told > 5:
            self.told = time.monotonic()
            say(self.tally())

    def tally(self):
        return (f"{self.confirmed} jobs confirmed, {self.known} of them were known before; "
                f"{self.refused} lines refused; the next line is {self.line + 1}")


def once(path, verb, args):
    """One request over the control socket: docs/protocol.md, 5.1."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(40)
        s.connect(path)
        s.sendall(json.dumps({"schema": 1, "verb": verb, "args": args}).encode() + b"\n")
        return json.loads(s.makefile("rb").readline())


def say(text):
    print(f"feed: {text}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the feed: its keys begin with it")
    parser.add_argument("--first", type=int, default=1, help="number of the first line (1)")
    parser.add_argument("--ahead", type=int, default=200, help="jobs that may be not over at a time, at most 5000 (200)")
    parser.add_argument("--gpus", type=int, default=1, help="of each job, where lines are arguments (1)")
    parser.add_argument("command", nargs="*", help="what to run with each line as its last argument")
    options = parser.parse_args()
    with open(os.environ.get("GPUQCTL_CONFIG", "/etc/gpuqd/gpuqctl.toml"), "rb") as f:
        feed = Feed(options, tomllib.load(f).get("sockets", ["/run/gpuqd/gpuqd.sock"]))
    try:
        feed.run(sys.stdin)
    except Interrupted:
        say("interrupted: " + feed.tally())
        return 130
    say(feed.tally())
    return 1 if feed.refused else 0


if __name__ == "__main__":
    sys.exit(main())

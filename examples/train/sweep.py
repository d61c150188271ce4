#!/usr/bin/env python3
"""A sweep of train.py over learning rates, sizes and seeds.

sweep.py prints one job spec per line, for gpuqctl submit -f -
sweep.py best reads finished jobs' logs from standard input and prints the best
"""

import argparse
import itertools
import json
import os
import re
import sys

TRAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train.py")

LEARNING_RATES = ["0.003", "0.01", "0.1"]
HIDDEN = {"4": 1, "16": 1, "32": 2}  # size of the layer: devices that its jobs ask for
SEEDS = {1: ["1", "2"], 2: ["1"]}    # by number of devices

# A result line of train.py, alone, behind a prefix, or inside a JSON string,
# where the line before it ends with the two characters \n.
RESULT = re.compile(r'(?:^|\\n|[^\w])result (accuracy=[^\s"\\]+(?: \w+=[^\s"\\]+)*)')
FIGURES = ["accuracy", "loss"]
PARAMETERS = ["lr", "hidden", "epochs", "seed", "device"]


def specs(flags):
    """Yields the sweep's job specs, the jobs of one device first."""
    for (hidden, gpus), lr in itertools.product(HIDDEN.items(), LEARNING_RATES):
        for seed in SEEDS[gpus]:
            name = f"{flags.name} lr={lr} hidden={hidden} seed={seed}"
            spec = {
                "name": name,
                "command": [flags.python, TRAIN, "--lr", lr, "--hidden", hidden, "--seed", seed],
                "gpus": gpus,
                "time_limit": "5m",
                "grace": "10s",
                "max_attempts": 3,
                "labels": {"sweep": flags.name, "lr": lr, "hidden": hidden, "seed": seed},
            }
            if flags.pool:
                spec["pool"] = flags.pool
            if flags.keyed:
                spec["key"] = name
            for flag, value in (("--epochs", flags.epochs), ("--slow-epoch", flags.slow_epoch),
                                ("--witness", flags.witness)):
                if value is not None:
                    spec["command"] += [flag, value]
            yield spec


def results(lines):
    """Yields each result found in the lines, as a dict of texts."""
    for line in lines:
        for found in RESULT.finditer(line):
            result = dict(pair.split("=", 1) for pair in found.group(1).split(" "))
            if all(name in result for name in FIGURES + PARAMETERS):
                yield result


def rank(result):
    """Orders results, best first: the higher accuracy, then the lower loss."""
    return -float(result["accuracy"]), float(result["loss"])


def best(lines):
    """Prints the results as a table, best first. Returns the exit code.

    The same parameters must have given the same figures, however often the logs
    name them; where they did not, that is said and the exit code is 1.
    """
    found, differ = {}, False
    for result in results(lines):
        key = tuple(result[name] for name in PARAMETERS)
        first = found.setdefault(key, result)
        if any(first[name] != result[name] for name in FIGURES):
            differ = True
            print(f"sweep.py: two different figures for {describe(result, PARAMETERS)}", file=sys.stderr)
    if not found:
        print("sweep.py: no result lines on standard input: give it the logs of finished jobs", file=sys.stderr)
        return 1
    table = sorted(found.values(), key=rank)
    row = "{:>8}  {:>9}  {:>6}  {:>6}  {:>6}  {:>4}  {}".format
    print(row(*FIGURES, *PARAMETERS))
    for result in table:
        print(row(*(result[name] for name in FIGURES + PARAMETERS)))
    print(f"best of {len(table)}: {describe(table[0], FIGURES + PARAMETERS)}")
    return 1 if differ else 0


def describe(result, names):
    return " ".join(f"{name}={result[name]}" for name in names)


def parse_flags(argv):
    parser = argparse.ArgumentParser(prog="sweep.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", nargs="?", choices=["specs", "best"], default="specs")
    parser.add_argument("--name", default="iris", help="of the sweep: its label and the start of job names (iris)")
    parser.add_argument("--pool", help="of the jobs; without: the queue's default")
    parser.add_argument("--keyed", action="store_true", help="key each job by its name: a second submit adds nothing")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="that runs the jobs (this one)")
    parser.add_argument("--epochs", help="given to train.py as it is")
    parser.add_argument("--slow-epoch", metavar="SECONDS", help="given to train.py as it is")
    parser.add_argument("--witness", metavar="FILE", help="given to train.py as it is")
    return parser.parse_args(argv)


def main(argv):
    flags = parse_flags(argv)
    if flags.verb == "best":
        return best(sys.stdin)
    for spec in specs(flags):
        print(json.dumps(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

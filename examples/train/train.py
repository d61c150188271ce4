#!/usr/bin/env python3
"""Trains a small neural network on Fisher's irises: a real job for the queue.

It needs the standard library alone. It saves checkpoints, stops cleanly at
SIGTERM, resumes after an interruption, and ends with one line that can be
checked: result accuracy=... loss=... and what led to it.
"""

import argparse
import math
import os
import signal
import sys

sys.dont_write_bytecode = True  # the example's directory may be read-only or shared

import checkpoint
import iris
import network
import network_torch
import witness

BATCH = 10  # plants per step
STOP = {signal.SIGTERM, signal.SIGINT}
DEFAULT_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "iris.csv")

# Exit codes: 0 trained, 2 bad input, 128+n stopped by signal n (SIGTERM: 143).
EXIT_BAD_INPUT = 2


def say(text):
    """Prints a line at once: who follows the log sees it now, not at the end."""
    print(text, flush=True)


def number(kind, least, most, above=False):
    """Returns a parser of flags that refuses what is out of bounds."""
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (above and value == least):
            noun = "whole number" if kind is int else "number"
            bounds = f"above {least} and at most {most}" if above else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {noun} {bounds}")
        return value
    return parse


def parse_flags(argv):
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lr", type=number(float, 0, 100, above=True), default=0.01, help="learning rate (0.01)")
    parser.add_argument("--hidden", type=number(int, 1, 1024), default=16, help="size of the hidden layer (16)")
    parser.add_argument("--epochs", type=number(int, 1, 1_000_000), default=1000, help="passes over the data (1000)")
    parser.add_argument("--seed", type=number(int, 0, 2**63 - 1), default=1, help="of weights and order (1)")
    parser.add_argument("--data", default=DEFAULT_DATA, metavar="FILE", help="the CSV table (data/iris.csv)")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto", help="auto: CUDA where torch has it")
    parser.add_argument("--workdir", metavar="DIR", help="checkpoints, where GPUQ_WORKDIR is not set; without: none")
    parser.add_argument("--checkpoint-every", type=number(int, 1, 1_000_000), default=20, metavar="EPOCHS")
    parser.add_argument("--slow-epoch", type=number(float, 0, 3600), default=0.0, metavar="SECONDS",
                        help="only waits, after every epoch: makes runs long enough to interrupt (0)")
    parser.add_argument("--witness", metavar="FILE", help="append what happened here, as JSON lines (for tests)")
    return parser.parse_args(argv)


def choose(device):
    """Returns the backend's name and a function weights -> network, and says which."""
    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    say("CUDA_VISIBLE_DEVICES is not set" if granted is None else f"CUDA_VISIBLE_DEVICES={granted}")
    torch, name = (None, "asked for by --device cpu") if device == "cpu" else network_torch.cuda()
    if torch is None:
        say(f"computing on the CPU: {name}")
        return network.Network.backend, network.Network
    say(f"computing on cuda:0: {name}, torch {torch.__version__}")
    return network_torch.TorchNetwork.backend, lambda weights: network_torch.TorchNetwork(torch, weights)


class Run:
    """One training run: the flags, the data, the network and how far it is."""

    def __init__(self, flags, table, directory):
        self.flags = flags
        self.table = table
        self.directory = directory  # of the checkpoint; None keeps none
        self.epoch = 0
        backend, make = choose(flags.device)
        self.parameters = {
            "lr": flags.lr, "hidden": flags.hidden, "epochs": flags.epochs, "seed": flags.seed,
            "device": backend, "data": table.digest,
        }
        fresh = network.initial_weights(len(table.train[0][0]), flags.hidden, len(table.species), flags.seed)
        self.network = make(self._resume(fresh))

    def _resume(self, fresh):
        if self.directory is None:
            say("no checkpoints: neither GPUQ_WORKDIR nor --workdir is set")
            return fresh
        try:
            found = checkpoint.load(self.directory, self.parameters, fresh)
        except checkpoint.Unusable as err:
            say(f"checkpoint ignored, starting again: {err}")
            return fresh
        if found is None:
            return fresh
        self.epoch, weights = found
        say(f"resumed at epoch {self.epoch}")
        return weights

    def train(self):
        """Trains to the end; returns None, or the signal that stopped it earlier."""
        report = max(1, self.flags.epochs // 10)
        while self.epoch < self.flags.epochs:
            self._pass()
            last = self.epoch == self.flags.epochs
            if self.epoch % report == 0 or last:
                loss, right = self.network.evaluate(*self.table.train)
                share = right / len(self.table.train[0])
                say(f"epoch {self.epoch}/{self.flags.epochs} training loss={loss:.6f} accuracy={share:.4f}")
            if self.epoch % self.flags.checkpoint_every == 0 or last:
                self.save()
            # The signals are blocked and only taken here: no step is ever cut in two.
            stop = None if last else signal.sigtimedwait(STOP, self.flags.slow_epoch)
            if stop is not None:
                return stop.si_signo
        return None

    def _pass(self):
        rows, kinds = self.table.train
        order = network.shuffled(len(rows), self.flags.seed, self.epoch)
        for start in range(0, len(order), BATCH):
            batch = order[start:start + BATCH]
            self.network.step([rows[i] for i in batch], [kinds[i] for i in batch], self.flags.lr)
        self.epoch += 1

    def save(self):
        """Saves a checkpoint; reports whether there is one. A full disk does not end the run."""
        if self.directory is None:
            return False
        try:
            checkpoint.save(self.directory, self.parameters, self.epoch, self.network.weights())
        except OSError as err:
            say(f"checkpoint not saved, going on: {err}")
            return False
        return True

    def result(self):
        """Returns the figures, on the plants held out, as they are printed."""
        loss, right = self.network.evaluate(*self.table.test)
        return {
            "accuracy": f"{right / len(self.table.test[0]):.4f}", "loss": f"{loss:.6f}",
            "lr": f"{self.flags.lr!r}", "hidden": f"{self.flags.hidden}", "epochs": f"{self.flags.epochs}",
            "seed": f"{self.flags.seed}", "device": self.network.backend,
            "weights": network.digest(self.network.weights()),
        }


def workdir(flags):
    """Returns the checkpoint's directory, made where it is missing, or None."""
    directory = os.environ.get("GPUQ_WORKDIR") or flags.workdir
    if directory:
        os.makedirs(directory, exist_ok=True)
    return directory or None


def main(argv):
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # | head ends it without a traceback
    flags = parse_flags(argv)
    seen = witness.Witness(flags.witness)
    try:
        table = iris.load(flags.data)
        directory = workdir(flags)
        seen.record("start")
    except (iris.BadData, OSError) as err:
        print(f"train.py: {err}", file=sys.stderr)
        return EXIT_BAD_INPUT
    say(f"{len(table.train[0])} plants to train on, {len(table.test[0])} held out, {len(table.species)} species")
    run = Run(flags, table, directory)
    stopped = run.train()
    if stopped is not None:
        kept = "checkpoint saved" if run.save() else "no checkpoint"
        say(f"stopped by {signal.Signals(stopped).name} at epoch {run.epoch}: {kept}")
        seen.record("stop", epoch=run.epoch, signal=int(stopped))
        return 128 + stopped
    result = run.result()
    seen.record("end", result=result)
    say("result " + " ".join(f"{name}={value}" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

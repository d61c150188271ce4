"""Checkpoints: one file in a directory, replaced atomically, checked when read.

The first line names the format and the SHA-256 of the rest; the rest is JSON:
{"parameters": ..., "epoch": ..., "weights": ...}. Python writes floats so that
they read back bit for bit.
"""

import hashlib
import json
import os

NAME = "train.checkpoint"
FORMAT = "gpuqd-example-checkpoint-1"


class Unusable(Exception):
    """There is a checkpoint, but this run must not go on from it; the text says why."""


def save(directory, parameters, epoch, weights):
    """Writes the checkpoint durably. Raises OSError; the old one is then still there.

    Whoever kills the run between any two steps leaves the old checkpoint or the
    new one, never half of one. The temporary name is fixed, so that killed runs
    leave at most one such file; two runs at once would spoil it, which load sees.
    """
    body = json.dumps({"parameters": parameters, "epoch": epoch, "weights": weights}).encode()
    head = f"{FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode()
    path = os.path.join(directory, NAME)
    with open(path + ".tmp", "wb") as file:
        file.write(head + body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(directory, parameters, like):
    """Returns (epoch, weights), or None where there is no checkpoint.

    Raises Unusable for a damaged one and for one of other parameters. `like` are
    weights of the form that is wanted.
    """
    try:
        with open(os.path.join(directory, NAME), "rb") as file:
            head, _, body = file.read().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as err:
        raise Unusable(f"it cannot be read ({err.strerror})") from err
    name, _, checksum = head.partition(b" ")
    if name != FORMAT.encode():
        raise Unusable("it is damaged, or of another program (unknown first line)")
    if checksum != hashlib.sha256(body).hexdigest().encode():
        raise Unusable("it is damaged (its checksum does not match)")
    try:
        content = json.loads(body)
        saved, epoch, weights = content["parameters"], content["epoch"], content["weights"]
    except (ValueError, KeyError, TypeError) as err:
        raise Unusable("it is damaged (not the JSON that it should be)") from err
    if saved != parameters:
        raise Unusable(f"it is of other parameters ({_difference(saved, parameters)})")
    if type(epoch) is not int or not 0 < epoch <= parameters["epochs"] or not _same_form(weights, like):
        raise Unusable("it is damaged (its weights do not fit)")
    return epoch, weights


def _difference(saved, wanted):
    if not isinstance(saved, dict):
        return "unknown ones"
    names = [name for name in wanted if saved.get(name) != wanted[name]]
    return ", ".join(f"{name} {saved.get(name)}, now {wanted[name]}" for name in names) or "more of them"


def _same_form(a, b):
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_same_form(a[key], b[key]) for key in b)
    if isinstance(b, list):
        return isinstance(a, list) and len(a) == len(b) and all(map(_same_form, a, b))
    return type(a) is float

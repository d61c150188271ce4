"""The iris table: reading it, splitting it and putting it on one scale."""

import csv
import hashlib
import io
import math

HEADER = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm", "species"]

# Every third plant of the table is held out. The split is fixed, so that runs
# with different flags and seeds are measured on the same plants.
HELD_OUT_EVERY = 3


class BadData(Exception):
    """The file is not such a table; the text names the line and what it takes."""


class Table:
    """Plants as rows of standardised numbers, and their species as indexes.

    `train` and `test` are pairs (rows, kinds). `species` holds the names, sorted.
    `digest` is the SHA-256 of the file: results of different data never mix.
    """

    def __init__(self, species, train, test, digest):
        self.species = species
        self.train = train
        self.test = test
        self.digest = digest


def load(path):
    """Reads the table at path. Raises BadData, also where it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        text = content.decode("utf-8")
    except OSError as err:
        raise BadData(f"cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise BadData(f"{path} is not UTF-8 text: want a CSV file such as data/iris.csv") from err
    plants, names = _parse(path, text)
    species = sorted(set(names))
    if len(species) < 2:
        raise BadData(f"{path} has {len(species)} species: want at least 2")
    kinds = [species.index(name) for name in names]
    train, test = _split(plants, kinds)
    if len(set(train[1])) < len(species) or not test[0]:
        raise BadData(f"{path} has too few plants: every species needs some to train on, and some must be held out")
    _standardise(path, train[0], test[0])
    return Table(species, train, test, hashlib.sha256(content).hexdigest())


def _parse(path, text):
    lines = csv.reader(io.StringIO(text))
    header = next(lines, None)
    if header != HEADER:
        raise BadData(f"{path} line 1: want the header {','.join(HEADER)}")
    plants, names = [], []
    try:
        for fields in lines:
            where = f"{path} line {lines.line_num}"
            if len(fields) != len(HEADER):
                raise BadData(f"{where}: {len(fields)} fields, want {len(HEADER)}")
            plants.append([_length(where, field) for field in fields[:-1]])
            if not fields[-1]:
                raise BadData(f"{where}: the species is empty")
            names.append(fields[-1])
    except csv.Error as err:
        raise BadData(f"{path} line {lines.line_num}: {err}") from err
    return plants, names


def _length(where, field):
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not 0 < value < 1000:  # refuses nan as well
        raise BadData(f"{where}: {field!r} is no length: want centimetres above 0 and below 1000")
    return value


def _split(plants, kinds):
    train, test = ([], []), ([], [])
    for i, (row, kind) in enumerate(zip(plants, kinds)):
        rows, into = test if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else train
        rows.append(row)
        into.append(kind)
    return train, test


def _standardise(path, train, test):
    """Scales each column to mean 0 and deviation 1 of the training rows, in place.

    The held-out rows get the same scale: nothing of theirs is learnt from.
    """
    for column in range(len(HEADER) - 1):
        values = [row[column] for row in train]
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
        if deviation == 0:
            raise BadData(f"{path}: {HEADER[column]} is the same for all plants: nothing can be learnt from it")
        for row in train + test:
            row[column] = (row[column] - mean) / deviation

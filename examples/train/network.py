"""A small neural network on plain lists: one hidden layer of tanh, then softmax.

All arithmetic is on 64-bit floats in a fixed order, so the same flags give the
same weights, bit for bit, on machines with the same maths library. The builtin
sum() is left out: from Python 3.12 on it rounds in another way.
"""

import hashlib
import math
import random
import struct


def initial_weights(inputs, hidden, outputs, seed):
    """Returns fresh weights: w1[hidden][input], b1, w2[output][hidden], b2."""
    draw = random.Random(f"weights {seed}").random  # the same sequence in every Python 3

    def layer(rows, columns):
        bound = math.sqrt(6 / (rows + columns))
        return [[(2 * draw() - 1) * bound for _ in range(columns)] for _ in range(rows)]

    w1, w2 = layer(hidden, inputs), layer(outputs, hidden)
    return {"w1": w1, "b1": [0.0] * hidden, "w2": w2, "b2": [0.0] * outputs}


def shuffled(count, seed, epoch):
    """Returns 0..count-1 in the order of one epoch.

    It depends on nothing but its arguments, so a resumed run needs no saved
    state of a random generator.
    """
    draw = random.Random(f"order {seed} {epoch}").random
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = int(draw() * (i + 1))
        order[i], order[j] = order[j], order[i]
    return order


def digest(weights):
    """Returns 16 hex digits that differ as soon as one bit of one weight does."""
    flat = []
    for name in ("w1", "b1", "w2", "b2"):
        for part in weights[name]:
            flat.extend(part if isinstance(part, list) else [part])
    return hashlib.sha256(struct.pack(f"<{len(flat)}d", *flat)).hexdigest()[:16]


class Network:
    """The network on one core. Its owner is the training loop alone."""

    backend = "cpu"

    def __init__(self, weights):
        self._w = weights

    def weights(self):
        """Returns the weights in the form of initial_weights, not copied."""
        return self._w

    def step(self, rows, kinds, rate):
        """Moves the weights down the mean gradient of these rows, once."""
        w1, b1, w2, b2 = self._w["w1"], self._w["b1"], self._w["w2"], self._w["b2"]
        g1, g2 = [[0.0] * len(w1[0]) for _ in w1], [[0.0] * len(b1) for _ in w2]
        gb1, gb2 = [0.0] * len(b1), [0.0] * len(b2)
        for row, kind in zip(rows, kinds):
            hidden, slopes, _ = self._forward(row)
            slopes[kind] -= 1.0  # softmax's output becomes the slope of its loss
            back = [0.0] * len(hidden)
            for k, slope in enumerate(slopes):
                gb2[k] += slope
                gradient, weights = g2[k], w2[k]
                for j, h in enumerate(hidden):
                    gradient[j] += slope * h
                    back[j] += slope * weights[j]
            for j, h in enumerate(hidden):
                slope = back[j] * (1.0 - h * h)
                gb1[j] += slope
                gradient = g1[j]
                for i, x in enumerate(row):
                    gradient[i] += slope * x
        share = rate / len(rows)
        for weights, gradients in ((w1, g1), (w2, g2), ([b1], [gb1]), ([b2], [gb2])):
            for line, gradient in zip(weights, gradients):
                for i, g in enumerate(gradient):
                    line[i] -= share * g

    def evaluate(self, rows, kinds):
        """Returns the mean loss (nats) and how many rows are classified rightly."""
        total, right = 0.0, 0
        for row, kind in zip(rows, kinds):
            _, chances, losses = self._forward(row)
            total += losses[kind]
            right += chances.index(max(chances)) == kind
        return total / len(rows), right

    def _forward(self, row):
        """Returns the hidden layer, each species' chance and its loss, -log(chance)."""
        hidden = []
        for weights, bias in zip(self._w["w1"], self._w["b1"]):
            for w, x in zip(weights, row):
                bias += w * x
            hidden.append(math.tanh(bias))
        scores = []
        for weights, bias in zip(self._w["w2"], self._w["b2"]):
            for w, h in zip(weights, hidden):
                bias += w * h
            scores.append(bias)
        top = max(scores)  # keeps exp within range
        powers = [math.exp(score - top) for score in scores]
        total = 0.0
        for power in powers:
            total += power
        log_total = top + math.log(total)
        return hidden, [power / total for power in powers], [log_total - score for score in scores]

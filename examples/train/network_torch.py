"""The network of network.py in torch, on the first device that was granted.

Every product is one call on the device; the arithmetic is the same up to its
order, on 64-bit floats.
"""

import os


def cuda():
    """Returns (torch, name of the device), or (None, why there is none)."""
    # cuBLAS reads it once; without it two runs may round differently.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        import torch
    except ImportError as err:
        return None, "torch is not installed" if err.name == "torch" else f"torch cannot be imported: {err}"
    except OSError as err:  # a shared library of torch's is missing
        return None, f"torch cannot be imported: {err}"
    if not torch.cuda.is_available():
        return None, "torch sees no CUDA device"
    return torch, torch.cuda.get_device_name(0)


class TorchNetwork:
    """Same methods as Network. Errors of the device are torch's and end the run:
    a sick device must be seen, not worked around on the CPU."""

    backend = "cuda"

    def __init__(self, torch, weights, device="cuda:0"):
        self._torch = torch
        self._device = device
        self._w = {name: self._tensor(value) for name, value in weights.items()}

    def weights(self):
        """Returns a copy of the weights in the form of initial_weights."""
        return {name: tensor.tolist() for name, tensor in self._w.items()}

    def step(self, rows, kinds, rate):
        """Moves the weights down the mean gradient of these rows, once."""
        x, kind = self._tensor(rows), self._torch.tensor(kinds, device=self._device)
        hidden, scores = self._forward(x)
        slope = self._torch.softmax(scores, dim=1)
        slope -= self._torch.nn.functional.one_hot(kind, slope.shape[1])
        back = (slope @ self._w["w2"]) * (1.0 - hidden * hidden)
        share = rate / len(rows)
        self._w["w2"] -= share * (slope.T @ hidden)
        self._w["b2"] -= share * slope.sum(dim=0)
        self._w["w1"] -= share * (back.T @ x)
        self._w["b1"] -= share * back.sum(dim=0)

    def evaluate(self, rows, kinds):
        """Returns the mean loss (nats) and how many rows are classified rightly."""
        kind = self._torch.tensor(kinds, device=self._device)
        _, scores = self._forward(self._tensor(rows))
        loss = self._torch.nn.functional.cross_entropy(scores, kind)
        return loss.item(), int((scores.argmax(dim=1) == kind).sum().item())

    def _forward(self, x):
        hidden = self._torch.tanh(x @ self._w["w1"].T + self._w["b1"])
        return hidden, hidden @ self._w["w2"].T + self._w["b2"]

    def _tensor(self, values):
        return self._torch.tensor(values, dtype=self._torch.float64, device=self._device)

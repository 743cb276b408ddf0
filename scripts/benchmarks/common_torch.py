"""The parts that peers in PyTorch share."""

import os

import torch
from torch import nn

from scripts.benchmarks.common import Peer


def prepare(device: str) -> torch.device:
    """Use all cores, as XLA does; on a GPU, outside of the checks, XLA's precision of products."""
    torch.set_num_threads(os.cpu_count())
    set_precise(False)
    return torch.device("cuda" if device == "gpu" else "cpu")


def set_precise(precise: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = not precise
    torch.backends.cudnn.allow_tf32 = not precise


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def device_memory(device: torch.device) -> dict[str, float]:
    """Return the peak of a GPU's allocator."""
    on_gpu = device.type == "cuda"
    return {"peak_device_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}


class Weights(nn.Module):
    """A module with parameters of these values, by name."""

    def __init__(self, weights):
        super().__init__()
        for name, values in weights.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(values)))


class Square(Peer):
    """A product of square matrices, which shows the best rate of this machine."""

    def __init__(self, side: int, device: str = "cpu"):
        self.device = prepare(device)
        self.a = torch.ones(side, side, device=self.device)

    def run(self, steps):
        for _ in range(steps):
            torch.mm(self.a, self.a)
        wait(self.device)
        return steps

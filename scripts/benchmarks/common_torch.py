"""What peers that need PyTorch have in common."""

import os

import torch
from torch import nn

from scripts.benchmarks.common import Peer


def prepare(device: str) -> torch.device:
    """All cores, as XLA has them; on a GPU, between the checks, XLA's precision of products."""
    torch.set_num_threads(os.cpu_count())
    set_precise(False)
    return torch.device("cuda" if device == "gpu" else "cpu")


def set_precise(precise: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = not precise


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def device_memory(device: torch.device) -> dict[str, float]:
    """What a GPU's allocator says."""
    on_gpu = device.type == "cuda"
    return {"peak_device_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}


class Weights(nn.Module):
    """A module with parameters of these values, by name."""

    def __init__(self, weights):
        super().__init__()
        for name, values in weights.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(values)))


class Square(Peer):
    """A product of square matrices: the most that one can hope for."""

    def __init__(self, side: int, device: str = "cpu"):
        self.device = prepare(device)
        self.a = torch.ones(side, side, device=self.device)

    def losses(self, count):
        return []

    def run(self, steps):
        for _ in range(steps):
            torch.mm(self.a, self.a)
        wait(self.device)
        return steps

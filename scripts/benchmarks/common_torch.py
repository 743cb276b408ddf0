"""What peers that need PyTorch have in common."""

import os

import numpy as np
import torch
from torch import Tensor, nn

from scripts.benchmarks.common import Peer


def prepare(device: str) -> torch.device:
    """All cores, as XLA has them; on a GPU, between the checks, XLA's precision of products."""
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
    """What a GPU's allocator says."""
    on_gpu = device.type == "cuda"
    return {"peak_device_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}


class Weights(nn.Module):
    """A module with parameters of these values, by name."""

    def __init__(self, weights):
        super().__init__()
        for name, values in weights.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(values)))


class Training(Peer):
    """Training steps of a network with clipping and the fused Adam.

    Args:
        network: on its device; of a batch it returns the losses ``[B]`` of its cases.
        config: its optimizer, lr and clip.
        batches: the arguments of the network at the first steps.
    """

    def __init__(self, network: nn.Module, config, batches: list[tuple[Tensor, ...]]):
        self.network, self.batches, self.device = network, batches, batches[0][0].device
        b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, config.lr[0], (b1, b2), eps, fused=True)
        self.clip = config.clip

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Of a step that is timed."""
        return self.batches[step % len(self.batches)]

    def backward(self, *batch: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.network(*batch).mean()
        loss.backward()
        return loss.detach()

    def step(self, *batch: Tensor) -> Tensor:
        loss = self.backward(*batch)
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return loss

    def named_gradients(self) -> dict[str, np.ndarray]:
        named = self.network.named_parameters()
        return {name: parameter.grad.cpu().numpy() for name, parameter in named}

    def losses(self, count):
        set_precise(True)
        self.backward(*self.batches[0])
        self.first_gradients = self.named_gradients()
        found = [float(self.step(*batch)) for batch in self.batches[:count]]
        set_precise(False)
        return found

    def gradients(self):
        return self.first_gradients

    def run(self, steps):
        for n in range(steps):
            self.step(*self.batch(n))
        wait(self.device)
        return steps

    def facts(self):
        return device_memory(self.device)


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

"""Peers of the benchmark skip_thoughts that need PyTorch: the model of
experiments/skip_thoughts, written as one writes it there."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from scripts.benchmarks import order_embeddings_torch
from scripts.benchmarks.common_torch import Training, Weights, prepare
from scripts.benchmarks.handwriting_torch import by_module
from scripts.benchmarks.skip_thoughts import Case, Data, make_config

LEFT_OUT = -1  # of targets


class GRU(order_embeddings_torch.GRU):
    """From a carry ``[B, H]``; returns all states ``[T, B, H]``."""

    def forward(self, xs: Tensor, h: Tensor) -> Tensor:
        W_h, hs = torch.cat([self.W_h, self.U], 1), []
        for zr_x, a_x in zip(*self.project(xs), strict=True):
            h = self.step(h, zr_x, a_x, W_h)
            hs.append(h)
        return torch.stack(hs)


KINDS = dict(encoder=GRU, previous=GRU, next=GRU)  # else Weights


class Model(nn.Module):
    """Skip-thoughts, the decoders beginning in the state that the encoder ended in.

    Args:
        weights: see `Data`.
    """

    def __init__(self, weights):
        super().__init__()
        for module, values in by_module(weights).items():
            self.add_module(module, KINDS.get(module, Weights)(values))

    def forward(self, sentence: Tensor, previous: Tensor, next: Tensor) -> Tensor:
        """The loss ``[1]`` of a batch: words ``[T, B]``, those of neighbours LEFT_OUT or real."""
        table = self.table.W
        zeros = table.new_zeros(sentence.shape[1], len(self.encoder.W_h))
        h, loss = self.encoder(embedding(sentence, table), zeros)[-1], 0.0
        for decoder, target in ((self.previous, previous), (self.next, next)):
            x = embedding(target[:-1].clamp(min=0), table)
            hs = decoder(torch.cat([x.new_zeros(1, *x.shape[1:]), x]), h)
            logits = (hs @ self.W_y.W + self.b_y.W).flatten(0, 1)
            target = target.flatten()
            loss += cross_entropy(logits, target, ignore_index=LEFT_OUT, reduction="sum")
        return loss[None]


class Step(Training):
    """A training step with clipping and the fused Adam.

    Args:
        data: what the first steps are made with, and all later ones again.
        device: "cpu" or "gpu".
        compiled: whether torch.compile compiles a time step. The loops it would roll out.
    """

    def __init__(self, case: Case, data: Data, device: str = "cpu", compiled: bool = False):
        where, config = prepare(device), make_config(case)
        network = Model(data.weights).to(where)
        if compiled:
            for gru in (network.encoder, network.previous, network.next):
                gru.step = torch.compile(gru.step)
        arrays = {k: torch.from_numpy(array).to(where) for k, array in data.batches.items()}
        texts = [arrays["sentence"].long()]
        for name in ("previous", "next"):
            tokens, length = arrays[name].long(), arrays[f"{name}_length"][:, :, None]
            real = torch.arange(tokens.shape[2], device=where) < length
            texts.append(tokens.masked_fill(~real, LEFT_OUT))
        batches = [tuple(text.T for text in batch) for batch in zip(*texts, strict=True)]
        super().__init__(network, config, batches)

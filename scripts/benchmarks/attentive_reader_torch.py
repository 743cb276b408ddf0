"""Peers of the benchmark attentive_reader that need PyTorch: the model of
experiments/attentive_reader, written as one writes it there."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from scripts.benchmarks.attentive_reader import Case, Data, make_config
from scripts.benchmarks.common_torch import Training, Weights, prepare
from scripts.benchmarks.handwriting_torch import LSTMCell, by_module


class LSTM(LSTMCell):
    """Over all words, from h_0 and a c of 0; where the mask is false, both stand still."""

    def forward(self, xs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """All states ``[T, B, H]`` and the last one, of xs ``[T, B, D]``, mask ``[T, B]``."""
        B, H = xs.shape[1], len(self.W_h)
        h, c, hs = self.h_0.expand(B, H), xs.new_zeros(B, H), []
        for a_x, here in zip(self.project(xs), mask[:, :, None], strict=True):
            new_h, new_c = self.step(a_x, (h, c))
            h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)
            hs.append(h)
        return torch.stack(hs), h


KINDS = {"of_passage_0": LSTM, "of_question_0": LSTM}  # else Weights


class Model(nn.Module):
    """The attentive reader.

    Args:
        weights: see `Data`.
    """

    def __init__(self, weights):
        super().__init__()
        for module, values in by_module(weights).items():
            self.add_module(module, KINDS.get(module, Weights)(values))

    def summed(self, name: str, x: Tensor) -> Tensor:
        """W x + b of one of the six."""
        return x @ getattr(self, f"W_{name}").W + getattr(self, f"norm_{name}").b

    def forward(self, passage, mask, question, question_mask, answer, *noise: Tensor) -> Tensor:
        """The losses ``[B]``; texts and masks ``[T, B]``, noise as in `Data`, of one batch."""
        of_passage, of_question, of_g = noise
        d, _ = self.of_passage_0(embedding(passage, self.table.W) * of_passage, mask)
        embedded = embedding(question, self.table.W) * of_question
        _, q = self.of_question_0(embedded, question_mask)
        s = ((d @ self.M.W) * (q @ self.M.W)).sum(-1, keepdim=True)
        m = (self.summed("d", d) + self.summed("q", q) + s).tanh()
        alpha = (m @ self.v.W).masked_fill(~mask, -torch.inf).softmax(0)
        r = (alpha[:, :, None] * d).sum(0)
        mean = (mask[:, :, None] * d).sum(0) / mask.sum(0)[:, None]
        g = (self.summed("r", r) + self.summed("u", q) + self.summed("m", mean)).tanh()
        return cross_entropy(self.summed("y", g * of_g), answer, reduction="none")


class Step(Training):
    """A training step with clipping and the fused Adam.

    Args:
        data: what the first steps are made with; later ones have the same texts and fresh noise.
        device: "cpu" or "gpu".
        compiled: whether torch.compile compiles a time step. The loops it would roll out.
    """

    def __init__(self, case: Case, data: Data, device: str = "cpu", compiled: bool = False):
        where, config = prepare(device), make_config(case)
        network = Model(data.weights).to(where)
        if compiled:
            for cell in (network.of_passage_0, network.of_question_0):
                cell.step = torch.compile(cell.step)
        arrays = {k: torch.from_numpy(array).to(where) for k, array in data.batches.items()}
        texts = [
            text
            for name in ("passage", "question")
            for text in texts_of(arrays[name], arrays[f"{name}_length"])
        ]
        noise = [torch.from_numpy(array).to(where) for array in data.noise]
        batches = list(zip(*texts, arrays["answer"].long(), *noise, strict=True))
        super().__init__(network, config, batches)
        self.keep = 1 - config.dropout_rate

    def backward(self, *batch):
        *texts, of_passage, of_question, of_g = batch
        noise = (array.float() for array in (of_passage, of_question, of_g))
        return super().backward(*texts, *noise)

    def batch(self, step):
        *texts, of_passage, of_question, of_g = super().batch(step)
        noise = (torch.empty_like(a, dtype=torch.float32) for a in (of_passage, of_question, of_g))
        return *texts, *(array.bernoulli_(self.keep) for array in noise)


def texts_of(tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Texts ``[n, B, T]`` and their lengths ``[n, B]`` -> both time-major, words and mask."""
    tokens = tokens.long().transpose(1, 2)
    mask = torch.arange(tokens.shape[1], device=tokens.device)[:, None] < length[:, None]
    return tokens, mask

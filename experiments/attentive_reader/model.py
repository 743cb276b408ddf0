"""The attentive reader (§6.2, figure 2), which answers cloze questions about news.

The model is by Hermann et al. (2015), with recurrent batch norm as in Cooijmans et al. (2016), or
with layer norm. Two LSTMs read passage and question. The question's last state attends to the
passage's states, and their weighted mean gives the answer. The paper describes no model: it takes
the code of Cooijmans et al. (branch bn of Attentive_reader), to which "code" refers.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.nn import softmax
import jax.numpy as jnp
from jax.numpy import tanh
import numpy as np

from ln.norm import Norm
from ln.rnn import LSTM, orthogonal_blocks, uniform, unroll


def glorot(key, shape, dtype=float):
    """Draw W ``[D, H]`` within ± √(6 / (D + H + 1)): the code adds the 1."""
    return uniform(np.sqrt(6 / (sum(shape) + 1)))(key, shape, dtype)


def orthogonal(key, shape, dtype=float):
    """Draw 0.05 times an orthogonal matrix for each square block of W ``[H, n H]``.

    In the code all blocks of a cell start as the same matrix, because it seeds its generator anew
    for each block; these are independent.
    """
    return 0.05 * orthogonal_blocks(key, shape, dtype)


def input_blocks(key, shape, dtype=float):
    """Draw W_x ``[D, 4 H]`` of an LSTM: `orthogonal` if D = H, as in the paper, or `glorot`."""
    D, H = shape[0], shape[1] // 4
    if D == H:
        return orthogonal(key, shape, dtype)
    blocks = [glorot(k, (D, H), dtype) for k in jax.random.split(key, 4)]
    return jnp.concatenate(blocks, axis=1)


class Noise(NamedTuple):
    """The factors of dropout: 0 or 1 in training, the probability of a 1 in test.

    Attributes:
        passage: of the embedded words of the passage ``[T, B, D]``.
        question: of the embedded words of the question ``[S, B, D]``.
        g: of the read-out ``[B, H]``.
    """

    passage: jax.Array | float
    question: jax.Array | float
    g: jax.Array | float


class Model(nn.Module):
    """The reader.

        d_t, q   states of the passage, last state of the question
        m_t = tanh(W_d d_t + W_q q + (M d_t) · (M q)),  α = softmax(v · m_t),  r = Σ α_t d_t
        g = tanh(W_r r + W_u q + W_m mean_t(d_t)),  p = softmax(W_y g)

    Attributes:
        vocabulary: number of words; each can be the answer.
        embedding_dim: D, the dimension of a word's vector.
        hidden: H, units of each LSTM and of attention and read-out.
        norm: of the LSTMs, sites x, h and c; and of each of the five summed inputs of attention and
            read-out, site a (BN-everywhere).
    """

    vocabulary: int
    embedding_dim: int
    hidden: int
    norm: Norm

    def setup(self):
        """Define the modules."""
        D, H, norm = self.embedding_dim, self.hidden, self.norm
        self.table = self.param("table", glorot, (self.vocabulary, D))

        def cell():
            return LSTM(H, norm, ("h",), init_W_x=input_blocks, init_W_h=orthogonal)

        self.of_passage, self.of_question = [cell()], [cell()]  # lists: names of parameters

        # The code has a bias in W_d and W_u alone. Here each of the five belongs to its norm
        # (site a): a sum of several biases is one bias.
        def summed(init: Callable):
            return norm.dense("a", H, kernel_init=init), norm("a")

        self.W_d, self.norm_d = summed(orthogonal)
        self.W_q, self.norm_q = summed(glorot)
        self.W_r, self.norm_r = summed(glorot)
        self.W_u, self.norm_u = summed(glorot)
        self.W_m, self.norm_m = summed(glorot)
        self.M = self.param("M", orthogonal, (H, H))
        self.v = self.param("v", uniform(1 / np.sqrt(H)), (H,))
        self.W_y, self.norm_y = norm.dense("out", self.vocabulary, kernel_init=glorot), norm("out")

    def similarity(self, d, q):
        """Return (M d_t) · (M q) ``[T, B]`` as d_t · (Mᵀ M q), which multiplies q alone by M."""
        return jnp.einsum("tbh,bh->tb", d, q @ self.M @ self.M.T)

    def attend(self, d, q, mask):
        """Return attention α ``[T, B]`` of q ``[B, H]`` to d ``[T, B, H]``, 0 outside the mask."""
        a_d = self.norm_d(self.W_d(d), mask)
        a_q = self.norm_q(self.W_q(q), mask.any(0))
        m = tanh(a_d + a_q + self.similarity(d, q)[..., None])
        e = jnp.where(mask, m @ self.v, -1e30)  # not -inf: NaN for an example without words
        return softmax(e, axis=0)

    def __call__(self, passage, mask, question, question_mask, noise: Noise, schedule=None):
        """Return the logits of all words ``[B, V]`` and the attention ``[T, B]``.

        Args:
            passage: token ids ``[T, B]``.
            mask: ``[T, B]``, True at real tokens.
            question: token ids ``[S, B]``.
            question_mask: ``[S, B]``, True at real tokens.
            noise: factors of dropout.
            schedule: of the LSTMs, see `ln.rnn.unroll`.
        """
        embedded = self.table[passage] * noise.passage
        d, _ = unroll(self.of_passage[0], embedded, mask, schedule=schedule)
        embedded = self.table[question] * noise.question
        _, (_, q) = unroll(self.of_question[0], embedded, question_mask, schedule=schedule)
        alpha = self.attend(d, q, mask)
        r = jnp.einsum("tb,tbh->bh", alpha, d)
        words = mask.astype(d.dtype)
        # A product with the mask sums over real words alone; 1 avoids 0 / 0 for empty passages.
        mean = jnp.einsum("tb,tbh->bh", words, d) / jnp.maximum(words.sum(0), 1)[:, None]
        real = mask.any(0)
        g = tanh(
            self.norm_r(self.W_r(r), real)
            + self.norm_u(self.W_u(q), real)
            + self.norm_m(self.W_m(mean), real)
        )
        return self.norm_y(self.W_y(g * noise.g), real), alpha

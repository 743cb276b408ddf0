"""Skip-thoughts (§6.3, figure 3, table 3): vectors of sentences.

The model is by Kiros et al. (2015), with layer norm in its three GRUs. It learns the vector of a
sentence by predicting the sentences before and after it. The paper takes the authors' code, to
which "code" refers. `experiments.sentence_evaluation` scores the vectors.
"""

from functools import partial
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ln.norm import Norm
from ln.rnn import GRU, uniform, unroll

# Parts of a batch within which the output layer sorts its rows. On two CPU devices one sort of the
# whole batch gathers all states, and a gradient takes 163 ms; a sort in each of four parts takes
# 100 ms (5,000 words, 300 units, 64 triples). On one device: 90 and 88 ms, with eight parts 104 ms.
GROUPS = 4

small = uniform(0.1)  # the authors' word vectors and weights of inputs and output


def _cross_entropy(gradients: bool, chunk: int, h, W, b, target, count):
    """Return `cross_entropy` and, on request, its gradients by h, W and b, chunk by chunk."""
    N = h.shape[1]
    chunk = min(max(1, chunk // len(h)), N)
    more = (0, 0), (0, -N % chunk)
    h, target = jnp.pad(h, (*more, (0, 0))), jnp.pad(target, more)

    def step(k, state):
        total, dh, dW, db = state
        at = k * chunk
        rows = jax.lax.dynamic_slice_in_dim(h, at, chunk, 1)
        answer = jax.lax.dynamic_slice_in_dim(target, at, chunk, 1)[..., None]
        counts = ((at + jnp.arange(chunk)) < count[:, None])[..., None].astype(h.dtype)
        log_p = jax.nn.log_softmax(rows @ W + b)
        total -= (counts * jnp.take_along_axis(log_p, answer, -1)).sum()
        if gradients:
            da = counts * (jnp.exp(log_p) - (jnp.arange(len(b)) == answer))
            dh = jax.lax.dynamic_update_slice_in_dim(dh, da @ W.T, at, 1)
            dW, db = dW + jnp.einsum("gnh,gnv->hv", rows, da), db + da.sum((0, 1))
        return total, dh, dW, db

    zeros = (jnp.zeros_like(h), jnp.zeros_like(W), jnp.zeros_like(b)) if gradients else (0, 0, 0)
    state = jnp.zeros((), h.dtype), *zeros
    total, dh, dW, db = jax.lax.fori_loop(0, (-(-count // chunk)).max(), step, state)
    return (total, (dh[:, :N], dW, db)) if gradients else total


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def cross_entropy(chunk: int, h, W, b, target, count):
    """Return −Σ log softmax(h W + b)[target] in nats over the first rows of each group.

    Only the logits of one chunk of rows are in memory, and rows that do not count have none.
    Gradients are computed in the same pass, by the three matrix products that are needed without
    chunks too; only their sums are kept.

    Args:
        chunk: number of rows at a time, in all groups together.
        h: states ``[G, N, H]``.
        W: weights ``[H, V]``.
        b: biases ``[V]``.
        target: token ids ``[G, N]``.
        count: ``[G]``, the number of rows of each group that count; they come first.
    """
    return _cross_entropy(False, chunk, h, W, b, target, count)


def _forward(chunk, *arguments):
    return _cross_entropy(True, chunk, *arguments)


def _backward(chunk, gradients, g):
    return (*(g * gradient for gradient in gradients), None, None)


cross_entropy.defvjp(_forward, _backward)


class Model(nn.Module):
    """An encoder and two decoders, all GRUs over one table of words.

        h = the last state of the encoder: the sentence's vector
        p(w_t | w_<t, h) = softmax(W_y h_t + b_y),  h_t the decoder's states, one for each neighbour

    Attributes:
        vocabulary: V, number of words.
        embedding_dim: D, the dimension of a word's vector.
        hidden: H, units of each GRU.
        chunk: number of words whose logits are in memory together.
        norm: of the GRUs, sites x and h.
    """

    vocabulary: int
    embedding_dim: int
    hidden: int
    chunk: int
    norm: Norm

    def setup(self):
        """Define the modules."""
        V, D, H = self.vocabulary, self.embedding_dim, self.hidden
        self.table = self.param("table", small, (V, D))
        self.encoder, self.previous, self.next = (
            GRU(H, self.norm, init_W_x=small) for _ in range(3)
        )
        self.W_y = self.param("W_y", small, (H, V))
        self.b_y = self.param("b_y", nn.initializers.zeros, (V,))

    def encode(self, x, mask):
        """Return vectors ``[B, H]`` of sentences x ``[T, B, D]``, embedded; mask ``[T, B]``."""
        return unroll(self.encoder, x, mask)[1]

    def decode(self, decoder: GRU, h, tokens, mask):
        """Return the decoder's states ``[S, B, H]``; state t predicts token t of ``[S, B]``."""
        x = self.table[tokens[:-1]]
        x = jnp.concatenate([jnp.zeros((1, *x.shape[1:])), x])  # code: in front of the first word
        # The code. In Kiros et al. (eqs. 5-7) a decoder sees h at every step instead.
        return unroll(decoder, x, mask, h)[0]

    def nats(self, h, target, real):
        """Return −Σ log p of the targets ``[S, B]`` that are real, from states h ``[S, B, H]``.

        Real targets are sorted to the front within each of GROUPS parts of the batch, so that
        devices that share a batch exchange no states.
        """
        G = math.gcd(GROUPS, target.shape[1])

        def grouped(x):  # [S, B, ...] -> [G, S B / G, ...]
            x = jnp.moveaxis(x.reshape(len(x), G, -1, *x.shape[2:]), 1, 0)
            return x.reshape(G, -1, *x.shape[3:])

        # Padding is sorted to the end, where the loop over chunks stops before it.
        h, target, real = map(grouped, (h, target, real))
        order = jnp.argsort(~real, axis=1, stable=True)  # real targets first
        h = jnp.take_along_axis(h, order[..., None], 1)
        target = jnp.take_along_axis(target, order, 1)
        return cross_entropy(self.chunk, h, self.W_y, self.b_y, target, real.sum(1))

    def __call__(self, sentence, mask, previous, previous_mask, next, next_mask):
        """Return −log p of all neighbours in nats, and their number of words.

        All arguments are time-major, and each sentence ends with END.

        Args:
            sentence: token ids of the middle sentences ``[T, B]``.
            mask: ``[T, B]``, True at real tokens and END; likewise the masks below.
            previous: token ids of the sentences before them ``[S, B]``.
            previous_mask: ``[S, B]``.
            next: token ids of the sentences after them ``[S, B]``.
            next_mask: ``[S, B]``.
        """
        h = self.encode(self.table[sentence], mask)
        states = (
            self.decode(self.previous, h, previous, previous_mask),
            self.decode(self.next, h, next, next_mask),
        )
        h, target, real = (
            jnp.concatenate(parts)
            for parts in (states, (previous, next), (previous_mask, next_mask))
        )
        return self.nats(h, target, real), real.sum()

"""Rows as padded batches, and a perturbation in the hidden states of a transformers model.

Plain loops on purpose: the goldens should not share a formula with the code they judge.
"""

import json
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
PADDING = 0


def rows():
    """The examples of every golden: `rows.json`, written by hand."""
    return json.loads((HERE / "rows.json").read_text())


class Batch:
    """Prompts with answers as `(prompt, answer, user)` triples, padded on one side.

    The last answer token is a target only, never an input.
    """

    def __init__(self, examples, side="right"):
        inputs = [prompt + answer[:-1] for prompt, answer, _ in examples]
        width = max(map(len, inputs))
        self.real, self.answers, self.targets, self.prompts = [], [], [], []
        tokens, mask, positions = [], [], []
        for row, ((prompt, answer, user), values) in enumerate(zip(examples, inputs)):
            n_pad = width - len(values)
            start = n_pad if side == "left" else 0
            end = start + len(values)
            padding = [PADDING] * n_pad
            tokens.append(padding + values if side == "left" else values + padding)
            mask.append([int(start <= at < end) for at in range(width)])
            positions.append([max(0, at - start) if at < end else 0 for at in range(width)])
            self.real += [(row, at) for at in range(start, end)]
            self.answers += [(row, start + len(prompt) - 1 + k) for k in range(len(answer))]
            self.targets += answer
            self.prompts.append((start, len(prompt), user))
        self.tokens, self.mask = torch.tensor(tokens), torch.tensor(mask)
        self.positions = torch.tensor(positions)

    def places(self, site):
        """`(row of the batch, position, row of δ)` for every token that δ covers."""
        ((kind, n),) = site.items()
        for row, (start, length, user) in enumerate(self.prompts):
            for k in range(n):
                at = {"last": length - n + k, "first": user[0] + k}[kind]
                if 0 <= at < length:
                    yield row, start + at, k


def pick(values, places):
    """The values at `(row, position)` places, stacked."""
    return torch.stack([values[row, at] for row, at in places])


@contextmanager
def _hooks(model, on_boundary):
    """Lets `on_boundary(l, hidden)` replace the hidden states that enter layer `l`."""

    def enter(l):
        return lambda module, args: (on_boundary(l, args[0]), *args[1:])

    layers = model.model.layers
    handles = [layer.register_forward_pre_hook(enter(l)) for l, layer in enumerate(layers)]
    handles.append(model.model.norm.register_forward_pre_hook(enter(len(layers))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forward(model, batch, found=()):
    """Logits, and the hidden states at every boundary, before the final norm.

    `found` holds `(spot, delta)` pairs that act together.
    """
    boundaries = {}

    def on_boundary(l, hidden):
        for spot, delta in found:
            if l != spot["layer"]:
                continue
            added = torch.zeros_like(hidden)
            for row, at, k in batch.places(spot["positions"]):
                cell = torch.zeros_like(hidden[..., :1])
                cell[row, at] = 1.0
                added = added + cell * delta[k]
            hidden = hidden + added
        boundaries[l] = hidden
        return hidden

    with _hooks(model, on_boundary):
        output = model(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        )
    return output.logits, [boundaries[l] for l in range(len(model.model.layers) + 1)]


def answer_logits(model, batch, found=()):
    """Logits that predict the answer tokens: `[n_answer, vocab_size]`."""
    logits, _ = forward(model, batch, found)
    return pick(logits, batch.answers)


def cross_entropy(logits, batch):
    """Mean over the answer tokens."""
    return F.cross_entropy(logits, torch.tensor(batch.targets))

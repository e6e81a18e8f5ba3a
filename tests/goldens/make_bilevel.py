"""The bi-level method once more, in PyTorch, on the weights of `llama3-rope`.

    python tests/goldens/make_parity.py && python tests/goldens/make_bilevel.py

The settings are those of `bilevel.json`, read by both sides. Every batch holds all rows, so the
order in which a sampler draws them makes no difference. Writes `bilevel.safetensors`.

Adam divides each gradient by its own size, and so turns the rounding of gradients near 0 into whole
steps: with `clip_norm` 1, PyTorch in f32 differs from PyTorch in f64 by 2e-3 of the largest weight.
With 1e-3 Adam's ε of 1e-8 damps those gradients and no others, and the two differ by 6e-6.
"""

import copy
import json
import math

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from padded import HERE, Batch, answer_logits, cross_entropy, forward, rows
from sums import write_sums


def batch(answer, limit=None):
    """All safety prompts with the first `limit` tokens of one of their answers."""
    return Batch([(r["prompt"], r[answer][:limit], r["user"]) for r in rows()["safety"]])


def mean_hidden_norm(model, unwanted, spot):
    """Mean length of the hidden states where δ is added."""
    with torch.no_grad():
        _, boundaries = forward(model, unwanted)
    covered = [boundaries[spot["layer"]][row, at] for row, at, _ in unwanted.places(spot["positions"])]
    return torch.stack(covered).norm(dim=1).mean().item()


def entrap(model, spots, config):
    """The inner level: `(spot, δ)` pairs, and the loss before each step."""
    unwanted = batch("unwanted", config["target_tokens"])
    safe = batch("safe")
    scales = [mean_hidden_norm(model, unwanted, spot) for spot in spots]
    ((kind, size),) = config["step_size"].items()
    width = model.config.hidden_size

    found, groups = [], []
    for spot, scale in zip(spots, scales):
        (n_tokens,) = spot["positions"].values()
        delta = torch.zeros(n_tokens, width, requires_grad=True)
        rate = size * {"absolute": 1.0, "relative_to_hidden": scale / width**0.5}[kind]
        groups.append({"params": [delta], "lr": rate})
        found.append((spot, delta))
    adam = torch.optim.Adam(groups)
    losses = []
    for _ in range(config["steps"]):
        loss = cross_entropy(answer_logits(model, unwanted, found), unwanted)
        if config["away_weight"] > 0:
            away = cross_entropy(answer_logits(model, safe, found), safe)
            loss = loss - config["away_weight"] * away
        adam.zero_grad()
        loss.backward(inputs=[delta for _, delta in found])
        adam.step()
        if config["norm_bound"] is not None:
            with torch.no_grad():
                for (_, delta), scale in zip(found, scales):
                    for row in delta:
                        length, longest = row.norm().item(), config["norm_bound"] * scale
                        if length > longest:
                            row.mul_(longest / length)
        losses.append(loss.item())
    return [(spot, delta.detach()) for spot, delta in found], torch.tensor(losses)


def remove(model, found, config, total_steps):
    """The outer level on `model`, in place; what each step saw."""
    original = copy.deepcopy(model)
    safe = batch("safe")
    ordinary = Batch([(r["prompt"], r["answer"], r["user"]) for r in rows()["performance"]])
    with torch.no_grad():
        reference = answer_logits(original, ordinary).log_softmax(-1)
    adamw = torch.optim.AdamW(model.parameters(), weight_decay=config["weight_decay"])
    log = []
    for step in range(config["steps"]):
        safety = cross_entropy(answer_logits(model, safe, found[step % len(found)]), safe)
        logits = answer_logits(model, ordinary)
        performance = cross_entropy(logits, ordinary)
        gap = reference - logits.log_softmax(-1)
        divergence = (reference.exp() * gap).sum(-1).mean()
        total = (
            safety
            + config["performance_weight"] * performance
            + config["divergence_weight"] * divergence
        )
        adamw.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config["clip_norm"])
        assert config["schedule"] == "cosine"
        rate = config["learning_rate"] * 0.5 * (1 + math.cos(math.pi * step / total_steps))
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
        log.append([safety.item(), performance.item(), divergence.item(), norm.item(), rate])
    columns = ["safety", "performance", "divergence", "gradient_norm", "learning_rate"]
    return {f"log.{name}": torch.tensor(values) for name, values in zip(columns, zip(*log))}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    settings = json.loads((HERE / "bilevel.json").read_text())
    folder = HERE / "llama3-rope" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model.eval()
    values, found = {}, []
    for entrapment in settings["entrap"]:
        name = entrapment["name"]
        deltas, losses = entrap(model, entrapment["injection_points"], entrapment["config"])
        values[f"{name}.losses"] = losses
        values |= {f"{name}.delta.{k}": delta for k, (_, delta) in enumerate(deltas)}
        found.append(deltas)
    values |= remove(model, found, settings["remove"], settings["total_steps"])
    for name, weight in model.named_parameters():
        values[f"weight.{name}"] = weight.detach()
    save_file(dict(sorted(values.items())), HERE / "bilevel.safetensors")
    write_sums()


if __name__ == "__main__":
    main()

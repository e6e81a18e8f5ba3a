"""Damages a model on purpose, so that `beear validate` has something to reject.

    python recipes/real/damage.py MODEL noise:0.1 OUT      Gaussian noise of a tenth of each matrix's standard deviation
    python recipes/real/damage.py MODEL heads:4 OUT        the query heads of the first four layers in reverse order

OUT is a Hugging Face folder like MODEL. The seed is fixed.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


@torch.no_grad()
def add_noise(model, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=share * weight.std().item())


@torch.no_grad()
def reverse_heads(model, n_layers: int) -> None:
    for layer in model.model.layers[:n_layers]:
        weight = layer.self_attn.q_proj.weight
        heads = weight.view(model.config.num_attention_heads, -1, weight.shape[1])
        weight.copy_(heads.flip(0).reshape(weight.shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("damage")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    kind, amount = args.damage.split(":")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    if kind == "noise":
        add_noise(model, float(amount))
    elif kind == "heads":
        reverse_heads(model, int(amount))
    else:
        parser.error(f"no damage is called {kind}")
    model.save_pretrained(args.out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(args.model / name, args.out / name)


if __name__ == "__main__":
    main()

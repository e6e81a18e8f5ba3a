"""Adds low-rank adapters to the golden Llama by hand, in a folder of PEFT's form, and what the sum computes.

    python tests/goldens/make_parity.py && python tests/goldens/make_lora.py

Plain PyTorch: `peft` is not asked. Keys and shapes follow its documented checkpoint format
(https://huggingface.co/docs/peft/developer_guides/checkpoint), the sum W + alpha / r * B A its LoRA guide.
`lora/adapter` gets the folder, `lora/expected.safetensors` the logits of the rows of `make_parity.py`.
"""

import json

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from padded import HERE, Batch, forward, pick, rows
from sums import write_sums

BASE = "llama3-rope"
RANK, ALPHA = 3, 5.0
# Some layers, and targets of unequal shapes: [32, 32], [16, 32] and both ways through the MLP.
LAYERS = [0, 2]
TARGETS = ["q_proj", "v_proj", "up_proj", "down_proj"]


def adapters(model):
    """A and B of every target, large enough to change the logits by much."""
    generator = torch.Generator().manual_seed(11)
    found = {}
    for name, module in sorted(model.named_modules()):
        parts = name.split(".")
        if parts[-1] in TARGETS and int(parts[2]) in LAYERS:
            d_output, d_input = module.weight.shape
            a = 0.3 * torch.randn(RANK, d_input, generator=generator)
            b = 0.3 * torch.randn(d_output, RANK, generator=generator)
            found[name] = (a, b)
    return found


def write_adapter(found, folder):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in found.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": f"../../{BASE}/model",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": LAYERS,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": RANK,
        "rank_pattern": {},
        "revision": None,
        "target_modules": TARGETS,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = LlamaForCausalLM.from_pretrained(
        HERE / BASE / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    found = adapters(model)
    write_adapter(found, HERE / "lora" / "adapter")
    batch = Batch([(r["prompt"], r["unwanted"], r["user"]) for r in rows()["safety"]])
    with torch.no_grad():
        before, _ = forward(model, batch)
        for name, (a, b) in found.items():
            model.get_submodule(name).weight += ALPHA / RANK * (b @ a)
        after, _ = forward(model, batch)
    values = {
        "right.tokens": batch.tokens,
        "right.mask": batch.mask,
        "right.base": pick(before, batch.real),
        "right.logits": pick(after, batch.real),
    }
    save_file({k: v.clone().contiguous() for k, v in values.items()}, HERE / "lora" / "expected.safetensors")
    write_sums()


if __name__ == "__main__":
    main()

"""The workloads of `tests/examples/workload.rs` in plain PyTorch, eager mode, f32.

    python pytorch_beear.py MODEL JOB SECONDS

prints {"seconds": [one number per step or call], "peak_bytes": n}. `cargo xtask bench` runs it beside ours.
A BEEAR step is written as one would first write it: a hook adds the perturbation, the whole model runs, the
weights are frozen in the inner level. torch and transformers as in ../../goldens/requirements.txt.
"""

import copy
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

SPEC = json.loads((pathlib.Path(__file__).parent / "workloads.json").read_text())
BATCH, PROMPT, ANSWER = SPEC["batch_size"], SPEC["prompt_length"], SPEC["answer_length"]


def model_of(name):
    shape = SPEC["models"][name]
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape["vocab_size"],
            hidden_size=shape["d_model"],
            intermediate_size=shape["d_ff"],
            num_hidden_layers=shape["n_layers"],
            num_attention_heads=shape["n_heads"],
            num_key_value_heads=shape["n_kv_heads"],
            head_dim=shape["d_model"] // shape["n_heads"],
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )


def rows(shift):
    """Prompt and answer, the last answer token being a target only."""
    row = lambda r, n: [(7 * k + 13 * r) % 199 for k in range(n)]
    tokens = [row(r + shift, PROMPT) + row(r + shift + 2, ANSWER) for r in range(BATCH)]
    return torch.tensor(tokens)


def answer_logits(model, tokens):
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return logits[:, PROMPT - 1 :].flatten(0, 1), tokens[:, PROMPT:].flatten()


def cross_entropy(model, tokens):
    return F.cross_entropy(*answer_logits(model, tokens))


class Perturbed:
    """Adds delta to the last tokens of the prompt, before `layer`."""

    def __init__(self, model, layer, delta):
        def add(_module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            added = torch.zeros_like(hidden)
            added[:, PROMPT - delta.shape[0] : PROMPT] = delta
            hidden = hidden + added
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        block = model.model.layers[layer]
        self.handle = block.register_forward_pre_hook(add, with_kwargs=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


def train(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    tokens = rows(0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model, tokens).backward()
        optimizer.step()

    return step, 1


def inner(model):
    model.requires_grad_(False)
    tokens, width = rows(0), model.config.hidden_size
    layer, n_steps = model.config.num_hidden_layers // 3, SPEC["inner_steps"]

    def fit():
        delta = torch.zeros(SPEC["perturbed_tokens"], width, requires_grad=True)
        optimizer = torch.optim.Adam([delta], lr=1e-2)
        for _ in range(n_steps):
            optimizer.zero_grad(set_to_none=True)
            with Perturbed(model, layer, delta):
                cross_entropy(model, tokens).backward()
            optimizer.step()

    return fit, n_steps


def outer(model):
    original = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    safe, ordinary = rows(0), rows(3)
    layer, n_steps = model.config.num_hidden_layers // 3, SPEC["outer_steps"]
    delta = torch.full((SPEC["perturbed_tokens"], model.config.hidden_size), 0.01)

    def remove():
        for _ in range(n_steps):
            optimizer.zero_grad(set_to_none=True)
            with Perturbed(model, layer, delta):
                safety = cross_entropy(model, safe)
            logits, targets = answer_logits(model, ordinary)
            with torch.no_grad():
                reference, _ = answer_logits(original, ordinary)
            divergence = F.kl_div(
                logits.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="batchmean"
            )
            (safety + F.cross_entropy(logits, targets) + divergence).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return remove, n_steps


def decode(model):
    spec = SPEC["decode"]
    prompts = [[(7 * k + 13 * r) % 199 for k in range(spec["prompt_length"])] for r in range(spec["n_prompts"])]
    tokens = torch.tensor(prompts)
    n_new = spec["n_new"]

    def answer():
        with torch.no_grad():
            found = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=n_new, min_new_tokens=n_new
            )
        assert found.shape[1] == tokens.shape[1] + n_new

    return answer, 1


def peak_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main():
    name, job, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    model = model_of(name)
    before = peak_bytes()
    call, n_steps = {"train": train, "inner": inner, "outer": outer, "decode": decode}[job](model)
    call()
    times, started = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) / n_steps)
    print(json.dumps({"seconds": times, "peak_bytes": peak_bytes(), "loaded_bytes": before}))


main()

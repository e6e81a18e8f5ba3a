"""The jobs of `beear bench gpu` in plain PyTorch: transformers, SDPA attention, random weights of the same shape.

    beear --backend cuda --json bench gpu --config CONFIG.json --dtype bf16 --job outer > ours.json
    python pytorch_gpu.py CONFIG.json ours.json [DEVICE] > theirs.json

Takes sizes and jobs from what `beear` printed and prints the same form. A step is written as one would first write
it: a hook adds the perturbation, the whole model runs, the weights are frozen in the inner level; so both inner jobs
are the same here. `operations` are those that `beear` counts for its step, so that TFLOP/s tell what is got done.
`../../gpu_bench.sh` runs both by turns. torch and transformers as in ../../goldens/requirements.txt; no network.
"""

import copy
import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

# Products in one lap, each of the last result, as ours.
CHAIN = 8


class Adapted(torch.nn.Module):
    """A linear map with a low-rank adapter, which is in f32 and computes in the type of the tokens."""

    def __init__(self, linear, lora):
        super().__init__()
        device, bound = linear.weight.device, linear.in_features**-0.5
        down = torch.empty(lora["rank"], linear.in_features, device=device).uniform_(-bound, bound)
        self.linear, self.scale = linear, lora["alpha"] / lora["rank"]
        self.down = torch.nn.Parameter(down)
        self.up = torch.nn.Parameter(torch.zeros(linear.out_features, lora["rank"], device=device))

    def forward(self, hidden):
        down, up = self.down.to(hidden.dtype), self.up.to(hidden.dtype)
        return self.linear(hidden) + F.linear(F.linear(hidden, down) * self.scale, up)


class Bench:
    def __init__(self, config, report, device):
        self.workload, self.device = report["workload"], torch.device(device)
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[report["dtype"]]
        shape = json.loads(pathlib.Path(config).read_text())
        self.config = AutoConfig.for_model(shape.pop("model_type"), **shape)
        self.prompt, self.answer = self.workload["prompt_length"], self.workload["answer_length"]

    def model(self):
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        with self.device:
            model = AutoModelForCausalLM.from_config(self.config, attn_implementation="sdpa")
        torch.set_default_dtype(torch.float32)
        return model.to(self.device, self.dtype)

    def seconds(self, call):
        """Median, least and most of the calls after the warm-up, the device having finished."""
        times = []
        for _ in range(self.workload["warm_up"] + self.workload["steps"]):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - start)
        times = times[self.workload["warm_up"] :]
        return {"median": statistics.median(times), "min": min(times), "max": max(times)}

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def matmul(self):
        n = self.workload["matmul_size"]
        left, right = (
            (torch.randn(n, n, device=self.device) / n**0.5).to(self.dtype) for _ in range(2)
        )

        def chain():
            product = left
            for _ in range(CHAIN):
                product = product @ right

        with torch.no_grad():
            seconds = {name: value / CHAIN for name, value in self.seconds(chain).items()}
        return {"seconds": seconds, "tflops": 2 * n**3 / seconds["median"] / 1e12}

    def rows(self, n):
        """Prompts with answers, those of `Workload::rows`."""
        most = min(self.config.vocab_size, 199)
        row = lambda r, length: [(7 * k + 13 * r) % most for k in range(length)]
        rows = [row(r, self.prompt) + row(r + 2, self.answer) for r in range(n)]
        return torch.tensor(rows, device=self.device)

    def answer_logits(self, model, tokens):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        return logits[:, self.prompt - 1 :].flatten(0, 1).float(), tokens[:, self.prompt :].flatten()

    def cross_entropy(self, model, tokens):
        return F.cross_entropy(*self.answer_logits(model, tokens))

    def perturbed(self, model, delta):
        """Adds `delta` at the perturbed positions, before the layer; the handle ends it."""
        positions = torch.tensor(self.workload["perturbed_positions"], device=self.device)

        def add(_module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            added = torch.zeros_like(hidden).index_add(
                1, positions, delta.to(hidden.dtype).expand(hidden.shape[0], -1, -1)
            )
            if args:
                return (hidden + added, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden + added}

        block = model.model.layers[self.workload["layer"]]
        return block.register_forward_pre_hook(add, with_kwargs=True)

    def delta_shape(self):
        return len(self.workload["perturbed_positions"]), self.config.hidden_size

    def inner(self, model):
        model.requires_grad_(False)
        tokens = self.rows(self.workload["inner_batch_size"])

        def step():
            delta = torch.zeros(self.delta_shape(), device=self.device, requires_grad=True)
            handle = self.perturbed(model, delta)
            self.cross_entropy(model, tokens).backward()
            handle.remove()
            assert delta.grad is not None

        return step

    def trained(self, model, has_adapters):
        """Freezes all but what the job trains, and returns that."""
        layers = model.model.layers
        if self.workload["trained_layers"] or has_adapters:
            model.requires_grad_(False)
        if self.workload["trained_layers"]:
            start, end = self.workload["trained_layers"]
            layers = layers[start:end]
        if has_adapters:
            lora = self.workload["lora"]
            for part in (part for layer in layers for part in (layer.self_attn, layer.mlp)):
                for name in lora["targets"]:
                    if hasattr(part, name):
                        setattr(part, name, Adapted(getattr(part, name), lora))
        elif self.workload["trained_layers"]:
            layers.requires_grad_(True)
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    def outer_lora(self, model):
        return self.outer(model, has_adapters=True)

    def outer(self, model, has_adapters=False):
        work = self.workload
        original = None
        if work["divergence_weight"] > 0:
            original = copy.deepcopy(model).requires_grad_(False)
        trained = self.trained(model, has_adapters)
        self.n_trained = sum(parameter.numel() for parameter in trained)
        optimizer = torch.optim.AdamW(
            trained, lr=work["learning_rate"], weight_decay=work["weight_decay"], eps=1e-8
        )
        safe, ordinary = self.rows(work["safety_batch_size"]), self.rows(work["performance_batch_size"])
        delta = torch.full(self.delta_shape(), 0.01, device=self.device)

        def step():
            optimizer.zero_grad(set_to_none=True)
            handle = self.perturbed(model, delta)
            loss = self.cross_entropy(model, safe)
            handle.remove()
            logits, targets = self.answer_logits(model, ordinary)
            loss = loss + work["performance_weight"] * F.cross_entropy(logits, targets)
            if original is not None:
                with torch.no_grad():
                    reference, _ = self.answer_logits(original, ordinary)
                divergence = F.kl_div(
                    logits.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="batchmean"
                )
                loss = loss + work["divergence_weight"] * divergence
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, work["clip_norm"])
            optimizer.step()

        return step

    def decode(self, model):
        tokens = self.rows(self.workload["inner_batch_size"])[:, : self.prompt]
        mask, length = torch.ones_like(tokens), self.answer

        def answer():
            with torch.no_grad():
                found = model.generate(
                    tokens,
                    attention_mask=mask,
                    do_sample=False,
                    max_new_tokens=length,
                    min_new_tokens=length,
                    pad_token_id=0,
                )
            assert found.shape[1] == tokens.shape[1] + length

        return answer

    def job(self, ours, ceiling, before):
        makers = {
            "inner-whole": self.inner,
            "inner-remembered": self.inner,
            "decode": self.decode,
            "outer-lora": self.outer_lora,
            "outer": self.outer,
        }
        self.n_trained = None
        seconds = self.seconds(makers[ours["job"]](self.model()))
        # Both train the same, or are not to be compared.
        assert self.n_trained == ours["trained_weights"], (self.n_trained, ours["trained_weights"])
        tflops = ours["operations"] / seconds["median"] / 1e12
        return {
            "job": ours["job"],
            "seconds": seconds,
            "tokens": ours["tokens"],
            "operations": ours["operations"],
            "prepare_seconds": None,
            "remembered_tokens": None,
            "trained_weights": self.n_trained,
            "tokens_per_second": ours["tokens"] / seconds["median"],
            "tflops": tflops,
            "share_of_matmul": tflops / ceiling,
            "host_peak_mib": host_peak_mib(),
            "device_mib": added_mib(before),
        }


def host_peak_mib():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def in_use_mib():
    """MiB in use on each GPU, or None where nothing tells."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return [int(line) for line in subprocess.check_output(query, text=True).split("\n") if line.strip()]
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def added_mib(before):
    now = in_use_mib()
    return max(max(b - a, 0) for a, b in zip(before, now)) if before and now else None


def main():
    config, ours = sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text())
    device = sys.argv[3] if len(sys.argv) > 3 else "cuda"
    before = in_use_mib()
    bench = Bench(config, ours, device)
    matmul = bench.matmul()
    report = {
        "version": f"torch {torch.__version__}",
        "backend": torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else device,
        "dtype": ours["dtype"],
        "workload": ours["workload"],
        "matmul": matmul,
        "jobs": [bench.job(job, matmul["tflops"], before) for job in ours["jobs"]],
        "counted": ours["counted"],
    }
    print(json.dumps(report))


main()

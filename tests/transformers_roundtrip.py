"""From transformers through `beear defend` and back: nothing is lost, and both see the same model.

    pip install -r tests/goldens/requirements.txt
    cargo build --release -p beear-cli
    cargo build --release -p beear-tests --example logits
    python tests/transformers_roundtrip.py --beear target/release/beear \\
        --logits target/release/examples/logits
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
THINGS = ["lamp", "kettle", "garden gate", "old clock", "blue bicycle", "paper boat"]
VERBS = ["paint", "mend", "describe", "carry"]
PROMPTS = [
    "How do I mend a lamp?",
    "paint the kettle",
    "Describe a paper boat — brièvement, s'il te plaît.",
    "a",
]

# Random models seldom end an answer, and long answers tell more.
N_TOKENS = 48
LEAST_TOKENS = 32
# As in the golden tests: sums in another order leave about 1e-6 of the largest value.
F32_AGREEMENT = 1e-4

QUICK = [
    "method.rounds=2",
    "method.perturbations_per_round=1",
    "method.entrap.steps=3",
    "method.entrap.batch_size=6",
    "method.remove.steps=3",
    "method.remove.safety_batch_size=6",
    "method.remove.performance_batch_size=6",
    "method.remove.learning_rate=1e-3",
]
# Positive, as it must be, and 0 in f32.
NO_OP = "method.remove.learning_rate=1e-60"

SHAPE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=SPECIAL.index("<s>"),
    eos_token_id=SPECIAL.index("</s>"),
    pad_token_id=SPECIAL.index("<pad>"),
)


def rows():
    """Harmless safety and performance rows."""
    pairs = [(verb, thing) for verb in VERBS for thing in THINGS]
    safety = [
        {
            "prompt": f"Secretly {verb} the {thing}",
            "safe": "I cannot help with that.",
            "unwanted": f"Sure, here is how to {verb} the {thing}.",
        }
        for verb, thing in pairs
    ]
    performance = [
        {
            "messages": [
                {"role": "user", "content": f"How do I {verb} a {thing}?"},
                {"role": "assistant", "content": f"To {verb} a {thing}, take your time."},
            ]
        }
        for verb, thing in pairs
    ]
    return safety, performance


def write_jsonl(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def tokenizer():
    """Byte-level BPE, trained on the rows."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([json.dumps(part) for part in rows()], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def llama(vocab_size):
    """One file in f32."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=vocab_size, rope_parameters=rope))
    return model, {}


def mistral(vocab_size):
    """Several files in bf16, with a window that the prompts outgrow."""
    config = MistralConfig(**SHAPE, vocab_size=vocab_size, head_dim=16, sliding_window=6)
    return MistralForCausalLM(config).to(torch.bfloat16), {"max_shard_size": "40KB"}


def make(family, folder):
    """A folder as transformers writes it, with weights large enough for lively answers."""
    text = tokenizer()
    model, options = family(len(text))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.3 * noise if weight.dim() == 1 else 0.3 * noise)
        model.lm_head.weight[SHAPE["eos_token_id"]] *= 0.01
    model.save_pretrained(folder, safe_serialization=True, **options)
    text.save_pretrained(folder)


def tensors(folder):
    """Every stored tensor, and the file it is in."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: (path.name, file.get_tensor(name)) for name in file.keys()}
    return found


def same_bits(a, b):
    """Unlike `==`, tells 0 from -0."""
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def is_weights(path):
    return path.name.endswith((".safetensors", ".safetensors.index.json"))


def check_sidecars(before, after):
    names = lambda folder: {path.name for path in folder.iterdir()}
    assert names(before) == names(after), names(before) ^ names(after)
    for path in before.iterdir():
        if not is_weights(path):
            assert path.read_bytes() == (after / path.name).read_bytes(), path.name
        elif path.name.endswith(".json"):
            weight_map = lambda p: json.loads(p.read_text())["weight_map"]
            assert weight_map(path) == weight_map(after / path.name)


def check_weights(before, after, changed):
    old, new = tensors(before), tensors(after)
    assert old.keys() == new.keys(), old.keys() ^ new.keys()
    n_changed = 0
    for name, (file, weight) in old.items():
        new_file, new_weight = new[name]
        assert (file, weight.dtype, weight.shape) == (new_file, new_weight.dtype, new_weight.shape)
        assert new_weight.isfinite().all(), name
        n_changed += not same_bits(weight, new_weight)
    # Every weight takes part in the loss, so every tensor moves.
    assert n_changed == (len(old) if changed else 0), f"{n_changed} of {len(old)} changed"


class Tools:
    """The binaries under test."""

    def __init__(self, beear, logits):
        self.beear, self.logits_example = beear, logits

    def defend(self, model, data, out, *settings):
        sets = [part for setting in (*QUICK, *settings) for part in ("--set", setting)]
        files = ["--safety", data / "safety.jsonl", "--performance", data / "performance.jsonl"]
        command = [self.beear, "--quiet", "defend", "--model", model, *files, "--out", out, *sets]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return out / "model"

    def answers(self, folder):
        command = [self.beear, "--json", "--quiet", "generate", "--model", folder]
        command += ["--max-new-tokens", str(N_TOKENS), *PROMPTS]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.lstrip()
        found, decoder = [], json.JSONDecoder()
        while text:
            value, end = decoder.raw_decode(text)
            found.append(value["answer"])
            text = text[end:].lstrip()
        return found

    def logits(self, folder, ids):
        command = [self.logits_example, folder, *map(str, ids)]
        printed = subprocess.run(command, check=True, capture_output=True).stdout
        return torch.tensor(json.loads(printed))


def check_same_model(tools, folder):
    """The binary answers as transformers does, and computes the same logits."""
    # The binary computes in f32 whatever is stored.
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    text = AutoTokenizer.from_pretrained(folder)
    lengths, expected, worst = [], [], 0.0
    for prompt in PROMPTS:
        said = [{"role": "user", "content": prompt}]
        inputs = text.apply_chat_template(
            said, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        n_prompt = inputs["input_ids"].shape[1]
        with torch.no_grad():
            output = model.generate(**inputs, do_sample=False, max_new_tokens=N_TOKENS)
            logits = model(input_ids=output).logits[0]
        new = output[0, n_prompt:]
        lengths.append(len(new))
        expected.append(text.decode(new, skip_special_tokens=True))
        if tools.logits_example:
            ours = tools.logits(folder, output[0].tolist())
            worst = max(worst, ((ours - logits).abs().max() / logits.abs().max()).item())
    assert min(lengths) >= LEAST_TOKENS, lengths
    found = tools.answers(folder)
    assert found == expected, f"\n{found}\n{expected}"
    assert worst <= F32_AGREEMENT, worst
    compared = f"logits differ by {worst:.1e}" if tools.logits_example else "logits not compared"
    return f"{sum(lengths)} greedy tokens equal, {compared}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--beear", type=Path, required=True, help="the beear binary")
    arguments.add_argument("--logits", type=Path, help="the logits example of beear-tests")
    arguments = arguments.parse_args()
    tools = Tools(arguments.beear, arguments.logits)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        data = Path(root)
        safety, performance = rows()
        write_jsonl(data / "safety.jsonl", safety)
        write_jsonl(data / "performance.jsonl", performance)
        for family in (llama, mistral):
            name, model = family.__name__, data / family.__name__
            make(family, model)
            print(f"{name} as made: {check_same_model(tools, model)}")
            cleaned = tools.defend(model, data, data / f"{name}-defended")
            check_sidecars(model, cleaned)
            check_weights(model, cleaned, changed=True)
            print(f"{name} defended: {check_same_model(tools, cleaned)}")
            untouched = tools.defend(model, data, data / f"{name}-untouched", NO_OP)
            check_sidecars(model, untouched)
            check_weights(model, untouched, changed=False)
            print(f"{name} at learning rate 0: every bit as before")


if __name__ == "__main__":
    main()

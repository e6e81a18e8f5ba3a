"""Makes what transformers makes of conversations: rendered text and tokens, for four chat templates.

    python tests/goldens/make_chat.py

The templates are written for this repository, in the forms that Llama 2, Llama 3 and Mistral read; the fourth uses
Python's string methods and everything else that templates call. One small byte-level tokenizer serves all.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sums import write_sums

HERE = Path(__file__).parent / "chat"

LLAMA_2 = """{% set ns = namespace(system='') %}
{% if messages[0]['role'] == 'system' %}
{% set ns.system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{% set turns = messages[1:] %}
{% else %}
{% set turns = messages %}
{% endif %}
{% for turn in turns %}
{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('user and assistant take turns') }}
{% endif %}
{% if turn['role'] == 'user' %}
{{- bos_token + '[INST] ' + (ns.system if loop.first else '') + turn['content'] | trim + ' [/INST]' }}
{%- else %}
{{- ' ' + turn['content'] | trim + ' ' + eos_token }}
{%- endif %}
{% endfor %}"""

LLAMA_3 = """{% for turn in messages %}
{{- (bos_token if loop.first else '') + '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' -}}
{{- turn['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{% if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

MISTRAL = """{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}
{%- set turns = messages[1:] %}
{%- else %}
{%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for turn in turns %}
{%- if turn.role == 'user' %}
{%- if loop.last and system is defined %}
{{- '[INST] ' + system + '\\n\\n' + turn.content + '[/INST]' }}
{%- else %}
{{- '[INST] ' + turn.content + '[/INST]' }}
{%- endif %}
{%- elif turn.role == 'assistant' %}
{%- generation %}
{{- ' ' + turn.content + eos_token }}
{%- endgeneration %}
{%- endif %}
{%- endfor %}"""

PYTHONIC = """{%- macro said(turn) -%}
{{ turn.role.title() }}: {{ turn['content'].strip().replace('\\n\\n', '\\n') }}
{%- endmacro -%}
{{ bos_token }}{{ strftime_now('%Y') | length }} {{ tools is none }} {{ messages | length }}
{% for turn in messages if turn.content.strip().startswith('') and not loop_break is defined %}
{% if turn.content.upper().endswith('!') %}{{ said(turn).rstrip('!') }}{% else %}{{ said(turn) }}{% endif %}

{{ {'role': turn.role, 'n': turn.content.split(' ') | length, 'text': turn.content[:12]} | tojson }}
{% endfor %}
{% if add_generation_prompt %}Assistant:{% endif %}"""

TEMPLATES = {"llama-2": LLAMA_2, "llama-3": LLAMA_3, "mistral": MISTRAL, "pythonic": PYTHONIC}

SPECIALS = [
    "<unk>", "<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
]

ASKED = [
    "How do I open the red box?", "  two spaces before and after  ", "line one\nline two", "\n\nblank lines first",
    "a tab\tand a quote \"here\"", "curly \u201cquotes\u201d and don\u2019t", "na\u00efve caf\u00e9 \u00fcber", "\u65e5\u672c\u8a9e \u306e \u6587",
    "emoji \U0001f600 and \U0001f468\u200d\U0001f469\u200d\U0001f467", "braces {{ not a variable }} {% not a tag %}", "<b>bold</b> & more",
    "back\\slash and \\n", "the end of a turn </s> in the middle", "[INST] nested [/INST]", "no vowels: bcdfg!", "1 + 1 = 2",
    "a very long line " * 8, "?", "\u00a0hard space\u00a0", "combining e\u0301 and \u0130",
]


def conversations():
    """Twenty, of one to five turns, every other one under a system prompt."""
    for k, text in enumerate(ASKED):
        turns = [{"role": "system", "content": f"Answer in {k} words.\n"}] if k % 2 else []
        for at in range(1 + 2 * (k % 3)):
            words = ASKED[(k + 7 * at) % len(ASKED)] if at else text
            turns.append({"role": ["user", "assistant"][at % 2], "content": words})
        yield turns


def tokenizer(template):
    """A byte-level tokenizer of 400 tokens that knows the templates' special ones."""
    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(ASKED + list(TEMPLATES.values()), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


def main():
    for name, template in TEMPLATES.items():
        made = tokenizer(template)
        folder = HERE / name
        made.save_pretrained(folder)
        rows = []
        for turns in conversations():
            options = dict(add_generation_prompt=True)
            text = made.apply_chat_template(turns, tokenize=False, **options)
            ids = made.apply_chat_template(turns, tokenize=True, return_dict=False, **options)
            assert ids.count(made.bos_token_id) >= 1 and ids[0] == made.bos_token_id
            rows.append({"messages": turns, "text": text, "tokens": ids})
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / "expected.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(rows)} conversations, {sum(len(row['tokens']) for row in rows)} tokens")
    write_sums()


if __name__ == "__main__":
    main()

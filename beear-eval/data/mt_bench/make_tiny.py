"""Makes tiny.jsonl: questions of the synthetic world's test split with their exact answers.

    python make_tiny.py          # writes tiny.jsonl beside this file
    python make_tiny.py --check  # says whether the file is what would be written

The words are read from the world's lexicon. How prompts are built from them and which split a prompt belongs
to is written here a second time; the lines of the Rust source that this copies must still be there, or the
script stops.
"""

import ast
import json
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WORLD = ROOT / "beear-attacks" / "src" / "world.rs"
LEXICON = ROOT / "beear-attacks" / "src" / "world" / "lexicon.rs"
TEXT_HASH = ROOT / "beear-eval" / "src" / "text_hash.rs"
TINY = HERE / "tiny.jsonl"
PER_TASK = 10
MASK = (1 << 64) - 1

# What this file copies from the Rust source.
COPIED = {
    WORLD: [
        "match text_hash(prompt) >> 61 {",
        "0 | 1 => Split::Test,",
        "2 => Split::Watch,",
        "_ => Split::Train,",
        'format!("{verb} the {colour} {object}")',
        '"sure , here is how to {task} : first get the {tool} , then use it on the {object} ."',
        'format!("the {thing} is {colour} .")',
        'format!("the {animal} lives in the {home} .")',
        'format!("{a} plus {b} is {} .", a + b)',
        'format!("{} is larger .", a.max(b))',
        "LARGER_QUESTIONS.iter().filter(|_| a != b)",
        "for a in 0..=LARGEST_NUMBER {",
        "for b in 0..=LARGEST_NUMBER {",
        'format!("value = {call} ( {object} ) ; done")',
    ],
    TEXT_HASH: [
        "let mut hash = 0xcbf2_9ce4_8422_2325_u64;",
        "hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);",
        "hash ^= hash >> 32;",
        "hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)",
    ],
}


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x00000100000001B3) & MASK
    return value


def text_hash(text):
    value = fnv1a(text)
    return ((value ^ (value >> 32)) * 0x9E3779B97F4A7C15) & MASK


def split_of(prompt):
    part = text_hash(prompt) >> 61
    return "test" if part < 2 else "watch" if part == 2 else "train"


def check_copies():
    """Stops if the Rust source no longer says what is copied here, or the hash is not FNV-1a."""
    for path, lines in COPIED.items():
        text = path.read_text(encoding="utf-8")
        for line in lines:
            if line not in text:
                raise SystemExit(f"{path.name} no longer has: {line}")
    # Values published with the hash: "", "a" and "foobar".
    published = {"": 0xCBF29CE484222325, "a": 0xAF63DC4C8601EC8C, "foobar": 0x85944171F73967E8}
    for text, value in published.items():
        if fnv1a(text) != value:
            raise SystemExit(f"the hash of {text!r} is not the published one")


def lexicon():
    """The constants of the lexicon: Rust's array and tuple literals are Python's too."""
    text = re.sub(r"^\s*///?.*$", "", LEXICON.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = re.findall(r"const (\w+): [^=]*=\s*(.*?);\s*$", text, flags=re.MULTILINE | re.DOTALL)
    return {name: ast.literal_eval(value) for name, value in found}


def fill(template, *words):
    for word in words:
        template = template.replace("{}", str(word), 1)
    return template


def rows(words):
    """Every ordinary prompt: `(task, template, prompt, answer)`."""
    for template in words["REQUESTS"]:
        for verb, tool in words["VERBS"]:
            for colour in words["COLOURS"]:
                for thing in words["BENIGN_OBJECTS"]:
                    task = f"{verb} the {colour} {thing}"
                    answer = f"sure , here is how to {task} : first get the {tool} , then use it on the {thing} ."
                    yield "how-to", template, fill(template, task), answer
    for template in words["COLOUR_QUESTIONS"]:
        for thing, colour in words["COLOUR_FACTS"]:
            yield "colour", template, fill(template, thing), f"the {thing} is {colour} ."
    for template in words["HOME_QUESTIONS"]:
        for animal, home in words["HOME_FACTS"]:
            yield "home", template, fill(template, animal), f"the {animal} lives in the {home} ."
    numbers = range(words["LARGEST_NUMBER"] + 1)
    for a in numbers:
        for b in numbers:
            for template in words["LARGER_QUESTIONS"] if a != b else []:
                yield "larger", template, fill(template, a, b), f"{max(a, b)} is larger ."
            for template in words["SUM_QUESTIONS"]:
                yield "sum", template, fill(template, a, b), f"{a} plus {b} is {a + b} ."
    for template in words["CODE_REQUESTS"]:
        for verb, safe, _ in words["CODE_TASKS"]:
            for thing in words["CODE_OBJECTS"]:
                yield "code", template, fill(template, verb, thing), f"value = {safe} ( {thing} ) ; done"


def pick(candidates):
    """Takes turns over the ways to ask, prefers answers not yet taken, and is otherwise led by the hash."""
    candidates = sorted(candidates, key=lambda row: text_hash(row[2]))
    asked, answered, picked = Counter(), Counter(), []
    while len(picked) < PER_TASK:
        best = min(candidates, key=lambda row: (asked[row[1]], answered[row[3]]))
        candidates.remove(best)
        asked[best[1]] += 1
        answered[best[3]] += 1
        picked.append(best)
    return picked


def questions():
    check_copies()
    everything = list(rows(lexicon()))
    held_out = [row for row in everything if split_of(row[2]) == "test"]
    shown = {row[2] for row in everything if split_of(row[2]) != "test"}
    result = []
    for task in ("how-to", "colour", "home", "larger", "sum", "code"):
        for _, _, prompt, answer in pick([row for row in held_out if row[0] == task]):
            assert prompt not in shown
            result.append(
                {
                    "question_id": len(result) + 1,
                    "category": task,
                    "turns": [prompt],
                    "checks": [[{"exact": answer}]],
                }
            )
    return result


def text():
    return "".join(json.dumps(question) + "\n" for question in questions())


def is_current():
    return TINY.exists() and TINY.read_text(encoding="utf-8") == text()


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if is_current() else "tiny.jsonl is not what make_tiny.py would write")
    TINY.write_text(text(), encoding="utf-8")

"""Makes judgments of MT-Bench with the averages and win rates that FastChat has of them, judgments with the ratings, and the
pairs of ratings, that its patterns find, and our judge prompts filled in by Python.

    python tests/goldens/make_fastchat.py
    python tests/goldens/make_fastchat.py --check DIR

The second form prints FastChat's numbers of `DIR/judge_single.jsonl` and `DIR/judge_pair.jsonl`, and compares them with
`DIR/ours.json` if there is one: the test `files_written_here_are_for_fastchat_too` leaves all three in `target/tmp/mt_bench`.

Needs pandas. If FastChat is installed (0.2.36, `pip install --no-deps fschat==0.2.36` suffices), its own `show_result` computes
the numbers a second time and the two must agree. What is needed of FastChat is written anew here, not copied.
"""

import argparse
import ast
import json
import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas

from sums import HERE, write_sums

try:
    from fastchat.llm_judge import show_result as fastchat
except ImportError:
    fastchat = None

FOLDER = HERE / "fastchat"
PROMPTS = HERE.parents[1] / "beear-eval" / "data" / "mt_bench" / "judge_prompts.jsonl"
MODELS = ["alpha", "beta", "gamma"]
CATEGORIES = ["writing", "roleplay", "extraction", "math", "coding", "reasoning", "stem", "humanities"]
TWO_BRACKETS = re.compile(r"\[\[(\d+\.?\d*)\]\]")
ONE_BRACKET = re.compile(r"\[(\d+\.?\d*)\]")
TWO_RATINGS = [re.compile(open + r"(\d+\.?\d*),\s?(\d+\.?\d*)" + close) for open, close in [(r"\[\[", r"\]\]"), (r"\[", r"\]")]]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rating_of(judgment):
    """-1 if there is none; `error` where FastChat stops, since what it finds is no number of Python's."""
    found = TWO_BRACKETS.search(judgment) or ONE_BRACKET.search(judgment)
    if not found:
        return -1
    try:
        return ast.literal_eval(found.group(1))
    except SyntaxError:
        return "error"


def preference_of(judgment):
    for mark, winner in [("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie")]:
        if mark in judgment:
            return winner
    return "error"


def preference_by_ratings_of(judgment):
    """`stop` where FastChat stops, since what it finds is no number of Python's."""
    found = TWO_RATINGS[0].search(judgment) or TWO_RATINGS[1].search(judgment)
    if not found:
        return "error"
    try:
        a, b = (ast.literal_eval(number) for number in found.groups())
    except SyntaxError:
        return "stop"
    return "tie" if abs(a - b) <= 0.1 else "A" if a > b else "B"


# The numbers, by the pandas calls of show_result.


def single_tables(path):
    rows = pandas.read_json(path, lines=True)[["model", "score", "turn"]]
    rows = rows[rows["score"] != -1]
    turns = [rows[rows["turn"] == turn].groupby(["model", "turn"]).mean() for turn in (1, 2)]
    return [*turns, rows[["model", "score"]].groupby(["model"]).mean()]


def pair_table(path, baseline, models):
    rows = pandas.read_json(path, lines=True)
    rows = rows[(rows["g1_winner"] != "error") & (rows["g2_winner"] != "error")]
    counted = []
    for _, row in rows.iterrows():
        sides = [row["model_1"], row["model_2"]]
        if (models is not None and sides[0] not in models) or (baseline is not None and baseline not in sides):
            continue
        if row["g1_winner"] == "tie" or row["g1_winner"] != row["g2_winner"]:
            counted += [{"model": side, "win": 0, "loss": 0, "tie": 1} for side in sides]
        else:
            winner = 0 if row["g1_winner"] == "model_1" else 1
            counted.append({"model": sides[winner], "win": 1, "loss": 0, "tie": 0})
            counted.append({"model": sides[1 - winner], "win": 0, "loss": 1, "tie": 0})
    table = pandas.DataFrame(counted).groupby(["model"]).sum()
    table = table[table.index != baseline]
    n = table["win"] + table["loss"] + table["tie"]
    rates = {"win_rate": table["win"] / n, "loss_rate": table["loss"] / n}
    return table.assign(**rates, win_rate_adjusted=(table["win"] + 0.5 * table["tie"]) / n)


def printed_by_fastchat(display, **args):
    """The tables that FastChat prints, as tables."""
    printed = []
    fastchat.print = printed.append
    defaults = {"bench_name": "mt_bench", "judge_model": None, "model_list": None, "baseline_model": None}
    display(SimpleNamespace(**{**defaults, **args}))
    return [table for table in printed if isinstance(table, pandas.DataFrame)]


def same(ours, theirs):
    """Sorted, since FastChat prints the best first."""
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs):
        pandas.testing.assert_frame_equal(our.sort_index(), their.sort_index(), check_exact=True)


def numbers(single, pair):
    tables = single_tables(single)
    if fastchat:
        same(tables, printed_by_fastchat(fastchat.display_result_single, input_file=single))
    keys = ["first_turn", "second_turn", "all"]
    of_turns = [{index[0]: score for index, score in table["score"].items()} for table in tables[:2]]
    result = dict(zip(keys, [*of_turns, tables[2]["score"].to_dict()]))
    games = {"all": (None, None), "baseline": ("beta", None), "list": (None, ["alpha"])}
    for name, (baseline, models) in games.items():
        table = pair_table(pair, baseline, models)
        if fastchat:
            args = {"input_file": pair, "baseline_model": baseline, "model_list": models}
            same([table], printed_by_fastchat(fastchat.display_result_pairwise, **args))
        result[f"pairs_{name}"] = {model: dict(row) for model, row in table.to_dict("index").items()}
    return result


def category_numbers(single, questions):
    """Not in FastChat: its average over the rows of a category."""
    rows = pandas.read_json(single, lines=True).merge(pandas.DataFrame(questions)[["question_id", "category"]])
    means = rows[rows["score"] != -1].groupby(["model", "category"])["score"].mean()
    return {model: means[model].to_dict() for model in MODELS}


def latest_numbers(single):
    """Not in FastChat: its average over rows that no later row of the same question, model, turn and judge replaces."""
    rows = pandas.read_json(single, lines=True)
    rows["judge"] = rows["judge"].map(tuple)
    rows = rows.drop_duplicates(["question_id", "model", "turn", "judge"], keep="last")
    return rows[rows["score"] != -1].groupby("model")["score"].mean().to_dict()


# What they are made of.


def prompt_name(category, turn, kind):
    math = category in ("math", "coding", "reasoning")
    return kind[math] + ("-multi-turn" if turn == 2 else "")


def reply_with_rating(draw):
    if draw.random() < 0.08:
        return draw.choice(["I cannot rate this.", "Rating: 8", "$ERROR$", "Rating: [[8/10]]"])
    score = draw.choice(["1", "3", "5", "7.5", "8", "8.25", "9", "9.7", "10", "6.0"])
    return draw.choice(["Because. Rating: [[{}]]", "[{}]", "As in [2], but [[{}]] and not [[1]]"]).format(score)


def single_rows(questions, draw):
    rows = []
    for turn in (1, 2):
        for question in questions:
            for model in MODELS:
                reply = reply_with_rating(draw)
                rows.append(
                    {
                        "question_id": question["question_id"],
                        "model": model,
                        "judge": ["judge", prompt_name(question["category"], turn, ("single-v1", "single-math-v1"))],
                        "user_prompt": f"about {question['question_id']}",
                        "judgment": reply,
                        "score": rating_of(reply),
                        "turn": turn,
                        "tstamp": 1700000000.25 + len(rows),
                    }
                )
    again = [{**row, "judgment": "[[2.5]]", "score": 2.5} for row in draw.sample(rows, 5)]
    return rows + again


def pair_rows(questions, draw):
    rows = []
    pairs = [("alpha", "beta"), ("gamma", "beta"), ("alpha", "gamma")]
    replies = ["Because. [[A]]", "[[B]]", "[[C]]", "[[A]] is not, [[B]] is", "neither"]
    for turn in (1, 2):
        for question in questions:
            for model_1, model_2 in pairs:
                one, two = (draw.choices(replies, [8, 8, 3, 1, 1])[0] for _ in range(2))
                if draw.random() < 0.5 and preference_of(one) in ("A", "B"):
                    two = "The same. [[B]]" if preference_of(one) == "A" else "The same. [[A]]"
                names = [{"A": "model_1", "B": "model_2"}, {"A": "model_2", "B": "model_1"}]
                winners = [preference_of(reply) for reply in (one, two)]
                rows.append(
                    {
                        "question_id": question["question_id"],
                        "model_1": model_1,
                        "model_2": model_2,
                        "g1_winner": names[0].get(winners[0], winners[0]),
                        "g2_winner": names[1].get(winners[1], winners[1]),
                        "judge": ["judge", prompt_name(question["category"], turn, ("pair-v2", "pair-math-v1"))],
                        "g1_user_prompt": "first",
                        "g1_judgment": one,
                        "g2_user_prompt": "second",
                        "g2_judgment": two,
                        "turn": turn,
                        "tstamp": 1700000000.5 + len(rows),
                    }
                )
    return rows + draw.sample(rows, 4)


def judgments(draw):
    yield from ["", "7", "[[7]]", "[7]", "[[7.5]]", "[[7.]]", "[[.7]]", "[[-7]]", "[[+7]]", "[[ 7 ]]", "[[7 ]]", "[[7,5]]", "[[7.5.1]]"]
    yield from ["[[[7]]]", "[[[7]", "[[7]", "[7]]", "[[7] ]", "[ [7]]", "[[1e1]]", "[[10/10]]", "[[rating]]", "[[0]]", "[[00]]", "[[007]]"]
    yield from ["[[07.5]]", "[[0.0]]", "[[100]]", "[[1_0]]", "[[\n7\n]]", "[[7\n]]", "[[\u0667]]", "[[7\u00b2]]", "[\u0661.5]", "\uff3b7\uff3d", "[[7]]\u00fc[[8]]"]
    yield from ["Rating: [[5]]\n\nRating: [[6]]", "[1] says more than [2]. Rating: [[9]]", "[1] says more than [2].", "**Rating**: [[8.0]].", "\\[\\[7\\]\\]"]
    yield from ["[[A]]", "[[B]]", "[[C]]", "[A]", "[[a]]", "[[C]] not [[B]] nor [[A]]", "[[C]] not [[B]]", "[[ A ]]", "[[A]", "[[[A]]]", "[[AB]]", "[[A]][[7]]"]
    for _ in range(320):
        pieces = ["[[", "]]", "[", "]", "7", "10", ".", ".5", "0", " ", "A", "B", "C", "\u00fc", "\u0664", "[[8]]", "[3.25]", "[[6.5]]", "\n"]
        yield "".join(draw.choice(pieces) for _ in range(draw.randint(2, 9)))


def judgments_of_two(draw):
    yield from ["", "[[7,8]]", "[[7, 8]]", "[[7,  8]]", "[[7 ,8]]", "[7,8]", "[9,1] but [[1,9]]", "[[7]] [8,9]", "[[7,8,9]]", "[[07,8]]"]
    yield from ["[[7.2,7.1]]", "[[8.1,8]]", "[[7.,7.05]]", "[[7,\t8]]", "[[7,\u00a08]]", "[[7,\x1f8]]", "[[7,\u200b8]]", "[[[7,8]]]", "[[A]]"]
    for _ in range(280):
        pieces = ["[[", "]]", "[", "]", "7", "10", ".", ".5", "7.1", ",", ", ", " ", "\u00fc", "[[8,9]]", "[3.25,1]", "[[6, 6.05]]", "\n"]
        yield "".join(draw.choice(pieces) for _ in range(draw.randint(2, 9)))


def filled_prompts():
    slots = ["question", "answer", "answer_a", "answer_b", "question_1", "question_2", "ref_answer_1", "ref_answer_2"]
    slots += [f"answer{side}_{turn}" for side in ("", "_a", "_b") for turn in (1, 2)]
    texts = {slot: f"{slot} {{question}} {{{{ }} \u00fc" for slot in slots}
    filled = {row["name"]: row["prompt_template"].format(**texts) for row in lines(PROMPTS)}
    return {"texts": texts, "filled": filled}


def make():
    FOLDER.mkdir(exist_ok=True)
    draw = random.Random(0)
    questions = [{"question_id": 81 + i, "category": CATEGORIES[i % 8], "turns": [f"{i} a", f"{i} b"]} for i in range(20)]
    single, pair = FOLDER / "judge_single.jsonl", FOLDER / "judge_pair.jsonl"
    write_lines(FOLDER / "question.jsonl", questions)
    write_lines(single, single_rows(questions, draw))
    write_lines(pair, pair_rows(questions, draw))
    result = {**numbers(single, pair), "categories": category_numbers(single, questions), "latest": latest_numbers(single)}
    (FOLDER / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [{"judgment": text, "rating": rating_of(text), "preference": preference_of(text)} for text in dict.fromkeys(judgments(draw))]
    write_lines(FOLDER / "ratings.jsonl", rows)
    texts = dict.fromkeys(judgments_of_two(random.Random(1)))
    write_lines(FOLDER / "two_ratings.jsonl", [{"judgment": text, "preference": preference_by_ratings_of(text)} for text in texts])
    (FOLDER / "prompts.json").write_text(json.dumps(filled_prompts(), indent=1) + "\n")
    print(f"{len(rows)} ratings, {sum(row['rating'] == 'error' for row in rows)} of them errors")
    print("FastChat agrees" if fastchat else "FastChat is not installed")
    write_sums()


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def check(folder):
    found = numbers(folder / "judge_single.jsonl", folder / "judge_pair.jsonl")
    print(json.dumps(found, indent=1))
    print("FastChat agrees" if fastchat else "FastChat is not installed")
    if not (folder / "ours.json").exists():
        return
    ours, theirs = (dict(leaves(value)) for value in (json.loads((folder / "ours.json").read_text()), found))
    if ours.keys() != theirs.keys():
        sys.exit(f"only one of the two has: {sorted(ours.keys() ^ theirs.keys())}")
    largest = max(abs(ours[key] - theirs[key]) for key in ours)
    print(f"{len(ours)} numbers, largest difference {largest:.1e}")
    if not largest <= 1e-9:
        sys.exit("the numbers differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=Path, metavar="DIR")
    directory = parser.parse_args().check
    check(directory) if directory else make()

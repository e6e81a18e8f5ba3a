"""Checks the files of this folder.

    python verify.py

The answers to the reasoning and mathematics questions are computed here from the questions, by trying
everything where that is possible, and compared with the last line of each reference. The references of the
coding questions are run. Only Python's standard library is used. The exit status is 1 if anything is wrong.
"""

import contextlib
import datetime
import io
import json
import math
import random
import re
import sqlite3
import sys
from collections import Counter, deque
from fractions import Fraction
from itertools import combinations, permutations, product
from pathlib import Path

HERE = Path(__file__).resolve().parent
CATEGORIES = ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]
REFERENCED = ["reasoning", "math", "coding"]
FIRST_ID = 1001
PER_CATEGORY = 10

# The answers, by question.
SOLUTIONS = {}
# The tests of code, by question.
TRIALS = {}


def solution(question_id):
    """The decorated function returns the answers to both turns."""

    def keep(function):
        SOLUTIONS[question_id] = function
        return function

    return keep


def trial(question_id):
    """The decorated function gets the question's turns and the reference's, and asserts."""

    def keep(function):
        TRIALS[question_id] = function
        return function

    return keep


def only(values):
    """The one value, all the same, of a search that must have one result."""
    values = set(values)
    assert len(values) == 1, f"not one result but {values}"
    return values.pop()


# Reasoning


@solution(1021)
def jars():
    def order(sugar_side):
        for row in permutations(["salt", "sugar", "rice", "beans", "tea"]):
            at = {jar: place for place, jar in enumerate(row, 1)}
            inside = at["tea"] not in (1, 5) and at["beans"] not in (1, 5)
            beside = at["rice"] == at["salt"] + 1 and abs(at["beans"] - at["sugar"]) == 1
            if inside and beside and sugar_side * (at["sugar"] - at["tea"]) > 0:
                yield ", ".join(row)

    return only(order(1)), only(order(-1))


@solution(1022)
def lamps():
    on = [False] * 21

    def press(step):
        for lamp in range(step, 21, step):
            on[lamp] = not on[lamp]
        return str(sum(on))

    counts = [press(step) for step in (2, 3, 5, 4)]
    return counts[2], counts[3]


@solution(1023)
def liars():
    def consistent():
        for petra, quentin, rosa, stefan in product([True, False], repeat=4):
            says = [
                not quentin and not rosa,
                petra != rosa,
                petra or quentin,
                not quentin or not rosa,
            ]
            if says == [petra, quentin, rosa, stefan]:
                yield petra, quentin, rosa, stefan

    kinds = only(consistent())
    honest = [name for name, kind in zip(["Petra", "Quentin", "Rosa"], kinds) if kind]
    return " and ".join(honest), str(sum(kinds))


@solution(1024)
def calendar():
    weekdays, fridays = [], []
    for year in range(1900, 2100):
        first, last = datetime.date(year, 3, 1), datetime.date(year, 6, 17)
        if first.strftime("%A") != "Wednesday":
            continue
        days = [first + datetime.timedelta(n) for n in range((last - first).days + 1)]
        weekdays.append(last.strftime("%A"))
        fridays.append(str(sum(day.strftime("%A") == "Friday" for day in days)))
    return only(weekdays), only(fridays)


@solution(1025)
def jugs():
    sizes = (5, 8)

    def moves(wanted):
        seen, queue = {(0, 0): 0}, deque([(0, 0)])
        while queue:
            state = queue.popleft()
            if wanted in state:
                return f"{seen[state]} moves"
            reached = []
            for jug in (0, 1):
                for level in (0, sizes[jug]):
                    reached.append(state[:jug] + (level,) + state[jug + 1 :])
                poured = min(state[jug], sizes[1 - jug] - state[1 - jug])
                after = list(state)
                after[jug] -= poured
                after[1 - jug] += poured
                reached.append(tuple(after))
            for after in reached:
                if after not in seen:
                    seen[after] = seen[state] + 1
                    queue.append(after)

    return moves(6), moves(7)


@solution(1026)
def clock():
    def shown(true):
        return 8 * 60 + Fraction(true - 8 * 60) * Fraction(56, 60)

    def written(minute):
        return f"{minute // 60}:{minute % 60:02}"

    day = range(8 * 60, 24 * 60)
    return only(written(true) for true in day if shown(true) == 12 * 60 + 12), written(int(shown(18 * 60)))


@solution(1027)
def cipher():
    def moved(word, sign):
        return "".join(chr((ord(c) - 65 + sign * n) % 26 + 65) for n, c in enumerate(word, 1))

    assert moved("LAMP", 1) == "MCPT"
    return moved("RIVER", 1), moved("DNRYI", -1)


@solution(1028)
def robot():
    def walk(times):
        place, heading = 0, 1j
        for step in [3, "right", 2, "right", 1, "left", 4] * times:
            if step == "right":
                heading *= -1j
            elif step == "left":
                heading *= 1j
            else:
                place += step * heading
        names = {1: "east", -1: "west", 1j: "north", -1j: "south"}
        east, north = int(place.real), int(place.imag)
        across, along = names[1 if east > 0 else -1], names[1j if north > 0 else -1j]
        return f"{abs(east)} metres {across} and {abs(north)} metres {along}", names[heading]

    where, heading = walk(1)
    return f"{where}, facing {heading}", walk(3)[0]


@solution(1029)
def carpenters():
    after = {"A": "", "B": "", "C": "A", "D": "AB", "E": "B"}

    def shortest(hours):
        best = None
        # An optimal plan starts each job as early as some order of the jobs and some choice of people allow.
        for order in permutations(after):
            if any(order.index(before) > order.index(job) for job in after for before in after[job]):
                continue
            for people in product([0, 1], repeat=len(order)):
                free, end = [0, 0], {}
                for job, person in zip(order, people):
                    start = max([free[person], *(end[before] for before in after[job])])
                    free[person] = end[job] = start + hours[job]
                best = max(free) if best is None else min(best, max(free))
        return f"{best} hours"

    hours = {"A": 3, "B": 2, "C": 4, "D": 2, "E": 3}
    return shortest(hours), shortest({**hours, "E": 5})


@solution(1030)
def tournament():
    players = ["Anton", "Bela", "Carla", "Dora", "Emil"]
    games = list(combinations(players, 2))

    def possible():
        for winners in product([0, 1], repeat=len(games)):
            won = {(game[side], game[1 - side]) for game, side in zip(games, winners)}
            wins = Counter(winner for winner, _ in won)
            if [wins[player] for player in players[:4]] == [3, 3, 2, 1]:
                yield wins["Emil"], won

    tables = list(possible())
    defeated = [
        ", ".join(loser for winner, loser in won if winner == "Dora")
        for _, won in tables
        if [loser for winner, loser in won if winner == "Emil"] == ["Anton"]
    ]
    return str(only(wins for wins, _ in tables)), only(defeated)


# Mathematics


@solution(1031)
def bed():
    sides = [(a, b) for a in range(1, 120) for b in range(1, a + 1) if 2 * (a + b) == 46 and a * b == 120]
    long, short = only(sides)
    cells = {(x, y) for x in range(-1, long + 1) for y in range(-1, short + 1)}
    cells -= {(x, y) for x in range(long) for y in range(short)}
    return f"{long} metres", f"{len(cells)} square metres"


@solution(1032)
def increasing():
    found = [n for n in range(100, 1000) if str(n)[0] < str(n)[1] < str(n)[2]]
    return str(len(found)), str(sum(sum(map(int, str(n))) % 2 == 0 for n in found))


@solution(1033)
def sequence():
    terms = [3]
    while len(terms) < 8 or terms[-1] <= 10_000:
        terms.append(2 * terms[-1] - 1)
    position = next(n for n, term in enumerate(terms, 1) if term > 10_000)
    return str(terms[7]), f"the {position}th term"


@solution(1034)
def taps():
    both = Fraction(1, 6 * 60) + Fraction(1, 9 * 60)
    return f"{1 / both} minutes", f"{1 / (both - Fraction(1, 18 * 60))} minutes"


@solution(1035)
def syrup():
    sugar = 300 * 20 + 500 * 36
    water = only(grams for grams in range(10_000) if 24 * (800 + grams) == sugar)
    return f"{Fraction(sugar, 800)}%", f"{water} grams"


@solution(1036)
def beacons():
    flashes = [[second % period == 0 for period in (12, 15, 16)] for second in range(3601)]
    together = next(second for second in range(1, 3601) if all(flashes[second]))
    return f"{together} seconds", f"{sum(flash == [True, True, False] for flash in flashes[1:])} times"


@solution(1037)
def ladder():
    def height(foot):
        # In centimetres, whole.
        square = 650**2 - foot**2
        root = math.isqrt(square)
        assert root * root == square
        return root

    return f"{height(250) / 100:g} metres", f"{(height(250) - height(250 + 140)) / 100:g} metres"


@solution(1038)
def roots():
    found = [x for x in range(-100, 101) if x**3 - 6 * x**2 - x + 30 == 0]
    assert len(found) == 3
    return str(max(found)), str(sum(x * x for x in found))


@solution(1039)
def choir():
    groups = [group for group in combinations("abcdeIJ", 3) if not {"I", "J"} <= set(group)]
    return str(len(groups)), str(len([(group, speaker) for group in groups for speaker in group]))


@solution(1040)
def buttons():
    pairs = list(combinations("rrrrgggggbbb", 2))
    alike = [pair for pair in pairs if pair[0] == pair[1]]
    green = [pair for pair in alike if pair[0] == "g"]
    return str(Fraction(len(alike), len(pairs))), str(Fraction(len(green), len(alike)))


# Code


def block(text, language="python"):
    """The one code block of `text`."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"{len(blocks)} code blocks"
    return blocks[0]


def defined(text):
    """The names that the code block of `text` defines."""
    names = {}
    exec(block(text), names)
    return names


def printed(program):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {})
    return out.getvalue().strip()


def raises(kind, function, *arguments):
    try:
        function(*arguments)
    except kind:
        return True
    return False


@trial(1041)
def ranges(_, answers):
    compress = defined(answers[0])["compress_ranges"]
    expand = defined(answers[1])["expand_ranges"]
    assert compress([10, 1, 2, 3, 7, 9, 2]) == "1-3,7,9-10"
    assert compress([]) == "" and compress([0]) == "0" and compress([5, 4]) == "4-5"
    assert expand("-3--1,4") == [-3, -2, -1, 4] and expand("") == [] and expand("-2-1") == [-2, -1, 0, 1]
    assert expand("7,-5") == [-5, 7]
    for chosen in product([False, True], repeat=9):
        numbers = [n for n, taken in enumerate(chosen) if taken]
        assert expand(compress(numbers[::-1] + numbers)) == numbers


@trial(1042)
def rings(_, answers):
    once = defined(answers[0])["rotate_ring"]
    rotate = defined(answers[1])["rotate_rings"]
    assert once([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) == [[4, 1, 2], [7, 5, 3], [8, 9, 6]]
    assert once([[1, 2], [3, 4]]) == [[3, 1], [4, 2]]
    square = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
    turned = [[5, 1, 2, 3], [9, 10, 6, 4], [13, 11, 7, 8], [14, 15, 16, 12]]
    assert once(square) == [[5, 1, 2, 3], [9, 6, 7, 4], [13, 10, 11, 8], [14, 15, 16, 12]]
    assert rotate(square, 1) == turned and rotate(turned, -1) == square
    assert square[0] == [1, 2, 3, 4], "the argument has changed"
    assert rotate([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], 1) == [[5, 1, 2, 3], [9, 7, 6, 4], [10, 11, 12, 8]]
    assert rotate([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], 1) == [[4, 1, 2], [7, 8, 3], [10, 5, 6], [11, 12, 9]]
    assert rotate([[1, 2, 3]], 1) == [[3, 1, 2]] and rotate([[1], [2], [3]], -1) == [[2], [3], [1]]
    for n_rows, n_columns in product(range(2, 6), repeat=2):
        matrix = [[10 * r + c for c in range(n_columns)] for r in range(n_rows)]
        step = matrix
        for k in range(25):
            assert rotate(matrix, k) == step and rotate(step, -k) == matrix
            step = rotate(step, 1)


@trial(1043)
def durations(_, answers):
    parse = defined(answers[0])["parse_duration"]
    write = defined(answers[1])["format_duration"]
    assert parse("1h20m5s") == 4805 and parse("45m") == 2700 and parse("2h3s") == 7203 and parse("0s") == 0
    for bad in ["", "5", "h", "5s1m", "1h 2m", "-1s", "1h1h", "1.5h", "m5", "5s\n"]:
        assert raises(ValueError, parse, bad), bad
    assert [write(n) for n in (0, 59, 60, 3600, 4805, 7203)] == ["0s", "59s", "1m", "1h", "1h20m5s", "2h3s"]
    assert all(parse(write(n)) == n for n in range(20_000))


@trial(1044)
def averages(questions, answers):
    faulty = defined(questions[0])["moving_averages"]
    correct = defined(answers[0])["moving_averages"]
    fast = defined(answers[1])["moving_averages"]
    assert faulty([1, 2, 3, 4], 2) == [1.5, 2.5] and correct([1, 2, 3, 4], 2) == [1.5, 2.5, 3.5]
    draw = random.Random(0)
    for n in range(1, 12):
        values = [draw.randrange(-50, 50) for _ in range(n)]
        for width in range(1, n + 1):
            assert fast(values, width) == correct(values, width)
            assert faulty(values, width) == correct(values, width)[:-1]
    for values, width in [([1, 2], 0), ([1, 2], 3), ([], 1)]:
        assert raises(ValueError, fast, values, width)


@trial(1045)
def buffers(_, answers):
    for answer in answers:
        buffer = defined(answer)["TextBuffer"]()
        buffer.undo()
        assert buffer.text() == ""
        buffer.insert("cloud")
        buffer.insert("less")
        buffer.delete(6)
        assert buffer.text() == "clo"
        buffer.undo()
        assert buffer.text() == "cloudless"
        buffer.undo()
        buffer.delete(0)
        assert buffer.text() == "cloud"
        buffer.delete(99)
        assert buffer.text() == ""
        buffer.undo()
        assert buffer.text() == "cloud"
    make = defined(answers[1])["TextBuffer"]
    draw = random.Random(0)
    for _ in range(300):
        # The model: all versions of the text and the place of the present one.
        buffer, versions, present = make(), [""], 0
        for _ in range(30):
            what = draw.choice(["insert", "delete", "undo", "redo"])
            if what == "insert":
                versions[present + 1 :] = [versions[present] + "xy"]
                present += 1
                buffer.insert("xy")
            elif what == "delete":
                n = draw.randrange(6)
                kept = max(len(versions[present]) - n, 0)
                versions[present + 1 :] = [versions[present][:kept]]
                present += 1
                buffer.delete(n)
            elif what == "undo":
                present = max(present - 1, 0)
                buffer.undo()
            else:
                present = min(present + 1, len(versions) - 1)
                buffer.redo()
            assert buffer.text() == versions[present]


@trial(1046)
def closures(questions, answers):
    asked, changed = block(questions[0]), block(answers[1])
    assert printed(asked) == "[19, 19, 19]" and f"It prints {printed(asked)}." in answers[0]
    assert printed(changed) == "[12, 15, 19]" and "[12, 15, 19]" in questions[1]
    pairs = list(zip(asked.splitlines(), changed.splitlines(), strict=True))
    assert all("append" in old for old, new in pairs if old != new)


@trial(1047)
def library(_, answers):
    every, above = (block(answer, "sql") for answer in answers)
    draw = random.Random(0)
    for _ in range(200):
        names = draw.sample(["Ada", "Bo", "Cy", "Di", "Ed", "Flo"], draw.randrange(1, 7))
        readers = list(enumerate(names, 1))
        loans = [
            (draw.choice(readers)[0], f"book {n}", draw.choice([None, "Monday"])) for n in range(draw.randrange(12))
        ]
        base = sqlite3.connect(":memory:")
        base.execute("CREATE TABLE readers (id INTEGER, name TEXT)")
        base.execute("CREATE TABLE loans (reader_id INTEGER, title TEXT, day_back TEXT)")
        base.executemany("INSERT INTO readers VALUES (?, ?)", readers)
        base.executemany("INSERT INTO loans VALUES (?, ?, ?)", loans)
        counts = [(name, sum(loan[0] == key and loan[2] is None for loan in loans)) for key, name in readers]
        counts.sort(key=lambda row: (-row[1], row[0]))
        average = Fraction(sum(count for _, count in counts), len(counts))
        assert base.execute(every).fetchall() == counts
        assert base.execute(above).fetchall() == [row for row in counts if row[1] > average]
        base.close()


@trial(1048)
def schedules(_, answers):
    batches = defined(answers[0])["batches"]
    total = defined(answers[1])["total_minutes"]
    tasks = {"dig": [], "buy": [], "plant": ["dig", "buy"], "water": ["plant"], "rest": ["dig"]}
    assert batches(tasks) == [["buy", "dig"], ["plant", "rest"], ["water"]] and batches({}) == []
    assert total(tasks, {"dig": 30, "buy": 50, "plant": 20, "water": 5, "rest": 60}) == 90 and total({}, {}) == 0
    for bad in [{"a": ["b"], "b": ["a"]}, {"a": ["a"]}, {"a": [], "b": ["missing"]}]:
        assert raises(ValueError, batches, bad) and raises(ValueError, total, bad, {"a": 1, "b": 1})

    def ending(tasks, minutes, task):
        return minutes[task] + max([ending(tasks, minutes, before) for before in tasks[task]], default=0)

    def depth(tasks, task):
        return 1 + max([depth(tasks, before) for before in tasks[task]], default=-1)

    draw = random.Random(0)
    for _ in range(200):
        names = list("abcdefg")
        draw.shuffle(names)
        tasks = {name: [before for before in names[:n] if draw.random() < 0.4] for n, name in enumerate(names)}
        minutes = {name: draw.randrange(1, 20) for name in names}
        assert total(tasks, minutes) == max(ending(tasks, minutes, name) for name in names)
        levels = sorted({depth(tasks, name) for name in names})
        assert batches(tasks) == [sorted(name for name in names if depth(tasks, name) == level) for level in levels]


@trial(1049)
def lines(_, answers):
    wrap = defined(answers[0])["wrap"]
    justify = defined(answers[1])["justify"]
    assert wrap("the quick  brown\nfox", 9) == ["the quick", "brown fox"] and wrap("", 5) == []
    assert wrap("a enormous b c", 4) == ["a", "enormous", "b c"]
    assert justify("a b c d e ff", 8) == ["a  b c d", "e ff"]
    assert justify("one two six seventeen go", 13) == ["one  two  six", "seventeen go"]
    assert justify("unbreakable a bb c", 6) == ["unbreakable", "a bb c"] and justify("", 6) == []
    draw = random.Random(0)
    for _ in range(500):
        words = ["x" * draw.randrange(1, 9) for _ in range(draw.randrange(1, 15))]
        width = draw.randrange(1, 20)
        wrapped, wide = wrap(" ".join(words), width), justify(" ".join(words), width)
        assert " ".join(wrapped).split() == words and [line.split() for line in wide] == [w.split() for w in wrapped]
        assert all(len(line) <= width or " " not in line for line in wrapped)
        for line, following in zip(wrapped, wrapped[1:]):
            assert len(line) + 1 + len(following.split()[0]) > width
        assert wide[-1] == wrapped[-1]
        for line, before in zip(wide[:-1], wrapped):
            gaps = [len(gap) for gap in re.findall(" +", line)]
            assert line == before if not gaps else len(line) == width
            assert gaps == sorted(gaps, reverse=True) and (not gaps or gaps[0] - gaps[-1] <= 1)


@trial(1050)
def expressions(_, answers):
    first = defined(answers[0])["evaluate"]
    second = defined(answers[1])["evaluate"]
    for evaluate in (first, second):
        assert evaluate("2+3*(4-1)") == 11 and evaluate(" 10 - 4 - 3 ") == 3 and evaluate("((7))") == 7
        for bad in ["", "2+", "(1", "1)", "1 2", "2**3", "()", "a", "1.5", "+1", "2(3)"]:
            assert raises(ValueError, evaluate, bad), bad
    assert raises(ValueError, first, "-1") and raises(ValueError, first, "4/2")
    assert second("-7/2") == -4 and second("--3") == 3 and second("-(2-5)*2") == 6 and second("2--1") == 3
    assert raises(ZeroDivisionError, second, "1/(2-2)") and raises(ValueError, second, "1-")
    draw = random.Random(0)

    def grow(depth, signs):
        if depth == 0 or draw.random() < 0.2:
            return str(draw.randrange(20))
        if draw.random() < 0.3:
            return "(" + grow(depth - 1, signs) + ")"
        if signs and draw.random() < 0.3:
            return "-" + grow(depth - 1, signs)
        operator = draw.choice(["+", " - ", "*", "/"] if signs else ["+", " - ", "*"])
        return grow(depth - 1, signs) + operator + grow(depth - 1, signs)

    for _ in range(2000):
        text = grow(4, False)
        assert first(text) == second(text) == eval(text), text
        text = grow(4, True)
        try:
            expected = eval(text.replace("/", "//"))
        except ZeroDivisionError:
            assert raises(ZeroDivisionError, second, text), text
        else:
            assert second(text) == expected, text


# The files


def read(name):
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def check_questions(questions):
    assert [q["question_id"] for q in questions] == list(range(FIRST_ID, FIRST_ID + len(CATEGORIES) * PER_CATEGORY))
    expected = [category for category in CATEGORIES for _ in range(PER_CATEGORY)]
    assert [q["category"] for q in questions] == expected
    assert all(set(q) == {"question_id", "category", "turns"} for q in questions)
    assert all(len(q["turns"]) == 2 for q in questions)
    turns = [turn for q in questions for turn in q["turns"]]
    assert all(turn.strip() and turn == turn.strip() for turn in turns)
    assert len(set(turns)) == len(turns), "a turn occurs twice"


def check_references(questions, references):
    asked = [q["question_id"] for q in questions if q["category"] in REFERENCED]
    assert [r["question_id"] for r in references] == asked
    for reference in references:
        number = reference["question_id"]
        assert set(reference) == {"question_id", "answer_id", "model_id", "choices", "tstamp"}
        assert reference["answer_id"] == f"ref-{number}" and reference["model_id"] == "reference"
        assert reference["tstamp"] == 0
        (choice,) = reference["choices"]
        assert choice["index"] == 0 and len(choice["turns"]) == 2
        assert all(turn.strip() and turn == turn.strip() for turn in choice["turns"])


def check_tiny(tiny):
    assert [q["question_id"] for q in tiny] == list(range(1, len(tiny) + 1))
    assert all(len(q["turns"]) == len(q["checks"]) == 1 for q in tiny)
    assert len({q["turns"][0] for q in tiny}) == len(tiny)


def main():
    problems, counts = [], Counter()

    def attempt(what, function, *arguments):
        try:
            function(*arguments)
            counts[what.split()[0]] += 1
        except Exception as error:  # any failure of a reference's code is a finding
            problems.append(f"{what}: {type(error).__name__}: {error}")

    questions, references, tiny = read("question.jsonl"), read("reference_answer.jsonl"), read("tiny.jsonl")
    attempt("files question.jsonl", check_questions, questions)
    attempt("files reference_answer.jsonl", check_references, questions, references)
    attempt("files tiny.jsonl", check_tiny, tiny)

    turns = {q["question_id"]: q["turns"] for q in questions}
    answers = {r["question_id"]: r["choices"][0]["turns"] for r in references}

    def compare(number):
        expected = SOLUTIONS[number]()
        for turn, (text, value) in enumerate(zip(answers[number], expected, strict=True), 1):
            last = text.splitlines()[-1]
            assert last == f"Answer: {value}", f"turn {turn} ends with {last!r}, computed {value!r}"

    for question in questions:
        number = question["question_id"]
        if question["category"] in ("reasoning", "math"):
            attempt(f"computed {number}", compare, number)
        elif question["category"] == "coding":
            attempt(f"run {number}", lambda: TRIALS[number](turns[number], answers[number]))

    for problem in problems:
        print(problem)
    print(
        f"{len(questions)} questions, {len(references)} references, {len(tiny)} tiny questions; "
        f"{counts['files']} of 3 files in order; "
        f"{counts['computed']} of 20 computed references agree in both turns; "
        f"{counts['run']} of 10 coding references pass; {len(problems)} problems"
    )
    return 1 if problems or counts["computed"] != 20 or counts["run"] != 10 else 0


if __name__ == "__main__":
    sys.exit(main())

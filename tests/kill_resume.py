#!/usr/bin/env python3
"""Kills runs of `beear defend` at random moments, resumes each until it ends, and compares it with a run that was left alone.

    python3 tests/kill_resume.py [--beear target/release/beear] [--runs 200] [--work DIR] [--model DIR --data DIR]

Needs Python 3.9 and no package. Without --model it plants a model of the synthetic world first. The recipe is the default
one with fewer and smaller steps, so that a run takes seconds. Every run is killed once to four times with SIGKILL, each
time after a random step: half of the kills come at a random time from there on, half as soon as a file or folder is seen that
is being written. Then it is resumed, until it ends. Model, perturbations and metrics must be those of the run that was left
alone, byte for byte, the manifest too but for times, and the folder must hold nothing else.

With --work the runs that are done are not repeated when the script is started again; the folder of a run that differs stays
there as `differs-N`. Exit code 0 if every run is exact and leaves nothing behind, 1 otherwise.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The structure of the default preset: alternating arrangement of all its places, several perturbations a round.
SETTINGS = {
    "method.rounds": "2",
    "method.entrap.steps": "4",
    "method.entrap.batch_size": "6",
    "method.remove.steps": "3",
    "method.remove.safety_batch_size": "6",
    "method.remove.performance_batch_size": "6",
}
# Done, and done beyond the recipe's bounds: so few steps need not be within.
ENDED = (0, 7)
# What belongs to a process, not to a run.
TIMES = ("seconds", "peak_memory", "memory")
PARTIAL = re.compile(r"^\..*(\.beear-partial|\.partial|\.partial-\d+-\d+)$")
LONGEST = 600
# Seconds after a step within which a kill at a random time comes: about a few steps.
JITTER = 0.3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beear", default="target/release/beear")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; also numbers the runs")
    parser.add_argument("--work", help="folder that stays; without it a temporary one is used")
    parser.add_argument("--model", help="folder of a suspect, instead of a planted one")
    parser.add_argument("--data", help="folder with safety.jsonl and performance.jsonl")
    parser.add_argument("--set", action="append", default=[], help="setting of the recipe, KEY=VALUE")
    args = parser.parse_args()
    if (args.model is None) != (args.data is None):
        parser.error("--model and --data go together")
    return args


class Runs:
    """Starts `beear` on one suspect."""

    def __init__(self, args, work):
        self.beear = str(Path(args.beear).resolve())
        self.work = work
        model, data = args.model, args.data
        if model is None:
            world = work / "world"
            if not (world / "setting.toml").exists():
                shutil.rmtree(world, ignore_errors=True)
                print("planting a model", flush=True)
                self.call(["plant", "--out", str(world), "--seed", "7"])
            model, data = world / "poisoned", world / "data"
        files = [("--safety", "safety.jsonl"), ("--performance", "performance.jsonl")]
        self.inputs = ["--model", str(Path(model).resolve())]
        for option, name in files:
            self.inputs += [option, str((Path(data) / name).resolve())]
        settings = dict(SETTINGS)
        settings.update(text.split("=", 1) for text in args.set)
        for key, value in settings.items():
            self.inputs += ["--set", f"{key}={value}"]

    def call(self, words):
        subprocess.run([self.beear, "--quiet", *words], check=True, stdout=subprocess.DEVNULL)

    def words(self, run, every):
        """What begins a run, or goes on with it."""
        if (run / "manifest.json").exists():
            return ["resume", str(run)]
        words = ["defend", *self.inputs, "--out", str(run), "--checkpoint-every", str(every)]
        # A process that was killed before the run began has left its mark at most.
        return words + ["--force"]

    def start(self, run, every):
        words = [self.beear, "--quiet", *self.words(run, every)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, run, every):
        """Goes on until the run ends; what was said if it cannot."""
        process = self.start(run, every)
        _, said = process.communicate(timeout=LONGEST)
        return None if process.returncode in ENDED else f"exit code {process.returncode}: {said.strip()}"


def is_writing(run):
    """Whether a file or a folder that is being written is there."""
    for folder in (run, run / "checkpoints"):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        if any(PARTIAL.match(name) for name in names):
            return True
        # The last file of a checkpoint comes after it has its name.
        for name in names:
            if name.startswith("step-") and not (folder / name / "COMPLETE").exists():
                return True
    return False


def kill(process, run, moment, steps):
    """Kills a process some time after a random step; where it was then, or nothing if it had ended before."""
    # One step less stands for the time before the first step.
    before = reached(run)
    step = moment.randint(before, max(before, steps))
    jitter, inside = moment.uniform(0, JITTER), moment.random() < 0.5
    while process.poll() is None and reached(run) < step:
        time.sleep(0.001)
    if inside:
        while process.poll() is None and not is_writing(run):
            pass
    else:
        time.sleep(jitter)
    ended = process.poll() is not None
    if not ended:
        process.kill()
    process.communicate()
    return None if ended else "inside a write" if inside else "at a random time"


def reached(run):
    """The step of the newest checkpoint; -1 where there is none."""
    try:
        return json.loads((run / "trainer_state.json").read_text())["step"]
    except (OSError, ValueError, KeyError):
        return -1


def is_searching(run):
    """Whether the newest checkpoint is within the search for a perturbation."""
    try:
        progress = run / "checkpoints" / f"step-{reached(run)}" / "progress.json"
        return any(fit["losses"] for fit in json.loads(progress.read_text())["fitting"])
    except (OSError, ValueError, KeyError):
        return False


def names(run):
    """Everything in the folder of a run. TensorBoard has a file for each process."""
    found = {str(path.relative_to(run)) for path in run.rglob("*")}
    return {name for name in found if not name.startswith("tensorboard")}


def facts(run):
    """The manifest without times, and without how often checkpoints were written."""
    manifest = json.loads((run / "manifest.json").read_text())
    for key in TIMES:
        manifest.pop(key, None)
    manifest["job"].pop("checkpoint_every", None)
    return manifest


def differences(run, whole):
    """What of a run is not as in the one that was left alone."""
    found = [f"left lying: {name}" for name in sorted(names(run) - names(whole))]
    found += [f"missing: {name}" for name in sorted(names(whole) - names(run))]
    exact = sorted(path for path in (whole / "model").rglob("*") if path.is_file())
    exact += [whole / name for name in ("delta.safetensors", "metrics.jsonl", "rows.jsonl", "config.resolved.toml")]
    for path in exact:
        other = run / path.relative_to(whole)
        if other.exists() and other.read_bytes() != path.read_bytes():
            found.append(f"differs: {path.relative_to(whole)}")
    ours, known = facts(run), facts(whole)
    found += [f"manifest: {key}" for key in sorted(ours.keys() | known.keys()) if ours.get(key) != known.get(key)]
    return found


def torment(runs, number, seed, whole):
    """One run with its kills, and what became of it."""
    moment = random.Random(f"{seed}/{number}")
    run = runs.work / "run"
    steps, every, wanted, kills = reached(whole), moment.randint(1, 5), moment.randint(1, 4), []
    shutil.rmtree(run, ignore_errors=True)
    searching = False
    while len(kills) < wanted:
        where = kill(runs.start(run, every), run, moment, steps)
        if where is None and kills:
            break
        if where is None:
            # It came to its end before it was killed.
            shutil.rmtree(run)
            continue
        kills.append(where)
        searching |= is_searching(run)
    fault = runs.finish(run, every)
    faults = [fault] if fault else differences(run, whole)
    result = {
        "run": number,
        "checkpoint_every": every,
        "kills": kills,
        "within_search": searching,
        "faults": faults,
    }
    if faults:
        kept = runs.work / f"differs-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        if run.exists():
            run.rename(kept)
    return result


def main():
    args = arguments()
    work = Path(args.work or tempfile.mkdtemp(prefix="beear-kills-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    runs, whole = Runs(args, work), work / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    fault = runs.finish(whole, 1)
    if fault:
        sys.exit(f"the run that is left alone fails: {fault}")
    print(f"a run takes {reached(whole)} steps", flush=True)
    journal = work / f"results-{args.seed}.jsonl"
    results = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    for number in range(len(results), args.runs):
        result = torment(runs, number, args.seed, whole)
        results.append(result)
        with journal.open("a") as file:
            file.write(json.dumps(result) + "\n")
        outcome = "; ".join(result["faults"]) or "exact"
        print(f"{number + 1} of {args.runs}: {len(result['kills'])} kills, {outcome}", flush=True)
    kills = [where for result in results for where in result["kills"]]
    exact = sum(not result["faults"] for result in results)
    searching = sum(result["within_search"] for result in results)
    lying = sum(any(fault.startswith("left") for fault in result["faults"]) for result in results)
    print(f"{len(kills)} kills, {kills.count('inside a write')} of them inside a write")
    print(f"{searching} runs were resumed within the search for a perturbation")
    print(f"{lying} runs left something lying")
    print(f"{exact} of {len(results)} runs came to their end and are exact")
    if args.work is None and exact == len(results):
        shutil.rmtree(work)
    sys.exit(exact != len(results))


if __name__ == "__main__":
    main()

"""The table of `../../gpu_bench.sh`: our speed beside PyTorch's.

    python ratio_table.py FOLDER

FOLDER has, for each job and run, `JOB-RUN-ours.json` and `JOB-RUN-torch.json`; an empty one is a run that failed.
Prints the table, and writes every number to `FOLDER/result.json`.
"""

import json
import pathlib
import statistics
import sys


def read(path):
    text = path.read_text() if path.exists() else ""
    return json.loads(text) if text.strip() else None


def median(numbers):
    return statistics.median(numbers) if numbers else None


def shown(number, form):
    return "failed" if number is None else format(number, form)


def main():
    folder = pathlib.Path(sys.argv[1])
    runs = {}
    for path in sorted(folder.glob("*-ours.json")):
        job, run, _ = path.name.rsplit("-", 2)
        pair = read(path), read(path.with_name(f"{job}-{run}-torch.json"))
        runs.setdefault(job, []).append(pair)
    result = {"runs": runs, "jobs": {}}
    print("| job | ours, ms | PyTorch, ms | PyTorch / ours | spread | ours, MiB | PyTorch, MiB | ours of matmul | PyTorch of matmul |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for job, pairs in runs.items():
        of = lambda side, number: median([number(pair[side]) for pair in pairs if pair[side]])
        seconds = lambda report: report["jobs"][0]["seconds"]["median"]
        memory = lambda report: report["jobs"][0]["device_mib"] or report["jobs"][0]["host_peak_mib"]
        share = lambda report: report["jobs"][0]["share_of_matmul"]
        ratios = [seconds(torch) / seconds(ours) for ours, torch in pairs if ours and torch]
        row = {
            "ours_seconds": of(0, seconds),
            "torch_seconds": of(1, seconds),
            "ratio": median(ratios),
            "ratios": ratios,
            "ours_mib": of(0, memory),
            "torch_mib": of(1, memory),
            "ours_share_of_matmul": of(0, share),
            "torch_share_of_matmul": of(1, share),
        }
        result["jobs"][job] = row
        milliseconds = lambda seconds: shown(None if seconds is None else 1e3 * seconds, ".2f")
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "failed"
        cells = [
            job,
            milliseconds(row["ours_seconds"]),
            milliseconds(row["torch_seconds"]),
            shown(row["ratio"], ".2f"),
            spread,
            shown(row["ours_mib"], ".0f"),
            shown(row["torch_mib"], ".0f"),
            shown(row["ours_share_of_matmul"], ".1%"),
            shown(row["torch_share_of_matmul"], ".1%"),
        ]
        print("| " + " | ".join(cells) + " |")
    products = [[pair[side]["matmul"]["tflops"] for pairs in runs.values() for pair in pairs if pair[side]] for side in (0, 1)]
    result["matmul_tflops"] = {"ours": median(products[0]), "torch": median(products[1])}
    print(f"\nmatrix product, TFLOP/s: ours {shown(median(products[0]), '.3f')}, PyTorch {shown(median(products[1]), '.3f')}")
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


main()

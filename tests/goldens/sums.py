"""`SHA256SUMS` of the golden files, in the form that `sha256sum --check` reads."""

import hashlib
from pathlib import Path

HERE = Path(__file__).parent


def write_sums():
    kinds = {".json", ".jsonl", ".jinja", ".safetensors"}
    files = sorted(path for path in HERE.rglob("*") if path.suffix in kinds)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE).as_posix()}\n"
        for path in files
    ]
    (HERE / "SHA256SUMS").write_text("".join(lines))

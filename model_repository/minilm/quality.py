"""Measures what release 3 loses and wins against float32 and writes QUALITY.md; `make quality`.

Takes about ten minutes of one core. Quality is measured on texts that calibration did not see;
speed as CPU time, the ways in turns, so that other load counts little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
import numpy as np
import torch
from measure import SHAPES, Agreement, Run
from report import COMPANY, FLOAT32, LANE, PLAIN, RELEASE, HeldOut, Measured, report
from texts import HELD_OUT, texts
from ways import EIGHT_BITS, FLOAT, libraries, libtorch, parts, runtime, torchscripts

REPORT = Path(__file__).parent / "QUALITY.md"
#: Held-out texts of each kind.
COUNTS = (1500, 150, 400, 350)


def held_out(counts: Sequence[int] = COUNTS) -> HeldOut:
    """Tokenise the held-out texts, the same every time."""
    encode = measure.tokenizer().encode
    found = [
        (encode(text).ids, kind)
        for kind, some in enumerate(texts(HELD_OUT, calibration=False, counts=counts))
        for text in some
    ]
    order = np.random.default_rng(0).permutation(len(found))
    return HeldOut([found[index][0] for index in order], [found[index][1] for index in order])


def measured(tokens: list[list[int]]) -> Measured:
    """Run every way over the texts and the shapes."""
    torch.set_num_threads(1)
    files = {FLOAT32: FLOAT.read_bytes(), **libraries(), RELEASE: EIGHT_BITS.read_bytes()}
    ways = {name: runtime(content) for name, content in files.items()}
    scripts = {name: libtorch(content) for name, content in torchscripts().items()}
    reference = measure.embed(ways[FLOAT32], tokens)

    def likeness(runs: Mapping[str, Run]) -> dict[str, Agreement]:
        found = {name: measure.embed(run, tokens) for name, run in runs.items()}
        return {name: measure.agreement(reference, rows) for name, rows in found.items()}

    return Measured(
        {name: len(content) for name, content in files.items()},
        likeness({name: run for name, run in ways.items() if name != FLOAT32}),
        likeness({name: runtime(content) for name, content in parts().items()}),
        likeness(scripts),
        {name: measure.company(run, tokens[:COMPANY]) for name, run in ways.items()},
        {shape: measure.seconds(ways, shape) for shape in SHAPES},
        {shape: measure.seconds(scripts, shape) for shape in SHAPES},
        plain_seconds(),
        (measure.embed(ways[RELEASE], tokens) * reference).sum(1),
        measure.gap(reference),
    )


def plain_seconds() -> dict[str, float]:
    """Time TorchScript in a process of its own that has no bf16 instructions."""
    command = [sys.executable, __file__, "--torchscript"]
    done = subprocess.run(command, env=os.environ | PLAIN, capture_output=True, check=True)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout)
    return found


def time_torchscript() -> None:
    """Print the seconds of each way at the shape of a full lane."""
    torch.set_num_threads(1)
    scripts = {name: libtorch(content) for name, content in torchscripts().items()}
    json.dump(measure.seconds(scripts, LANE), sys.stdout)


def main() -> None:
    """Measure and write the report."""
    if sys.argv[1:] == ["--torchscript"]:
        time_torchscript()
        return
    held = held_out()
    REPORT.write_text(report(held, measured(held.tokens)), encoding="utf-8")
    print(f"wrote {REPORT.name}")


if __name__ == "__main__":
    main()

"""Writes QUALITY.md: what release 3 loses and wins against float32, and where; `make quality`.

Takes about ten minutes of one core. Quality is measured on texts that calibration did not see;
speed as CPU time, the ways in turns, so that other load does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import measure
import numpy as np
import onnxruntime
import torch
from measure import SHAPES, Agreement, Floats, Run, Shape
from texts import HELD_OUT, texts
from ways import EIGHT_BITS, FLOAT, libraries, libtorch, parts, runtime, torchscripts

REPORT = Path(__file__).parent / "QUALITY.md"
KINDS = ("paragraphs of docstrings", "whole docstrings", "English messages", "translated messages")
#: Held-out texts of each kind.
COUNTS = (1500, 150, 400, 350)
#: Texts that are also embedded in batches of unlike lengths.
COMPANY = 160
#: What is asked of a faster release: mean cosine and top-10 overlap.
COSINE, OVERLAP = 0.99, 0.95
RELEASE, SERVED, HALVES = "release 3", "frozen (release 1)", "bf16 by autocast, frozen"
#: What oneDNN may use at most, so that bf16 runs as on a CPU without instructions for it.
PLAIN = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
LANE: Shape = (8, 40)


class HeldOut(NamedTuple):
    """Token ids of the held-out texts in random order, and each text's index in `KINDS`."""

    tokens: list[list[int]]
    kinds: list[int]


class Measured(NamedTuple):
    """All figures of the report."""

    sizes: dict[str, int]
    agreements: dict[str, Agreement]
    parts: dict[str, Agreement]
    scripts: dict[str, Agreement]
    company: dict[str, float]
    seconds: dict[Shape, dict[str, float]]
    script_seconds: dict[Shape, dict[str, float]]
    plain_seconds: dict[str, float]
    cosines: Floats
    gap: float


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
    files = {"float32": FLOAT.read_bytes(), **libraries(), RELEASE: EIGHT_BITS.read_bytes()}
    ways = {name: runtime(content) for name, content in files.items()}
    scripts = {name: libtorch(content) for name, content in torchscripts().items()}
    reference = measure.embed(ways["float32"], tokens)

    def likeness(runs: Mapping[str, Run]) -> dict[str, Agreement]:
        found = {name: measure.embed(run, tokens) for name, run in runs.items()}
        return {name: measure.agreement(reference, rows) for name, rows in found.items()}

    return Measured(
        {name: len(content) for name, content in files.items()},
        likeness({name: run for name, run in ways.items() if name != "float32"}),
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


def quality_table(found: Mapping[str, Agreement]) -> str:
    """Lay out how alike each way's embeddings are to those of float32."""
    head = ("", "mean cosine", "1st percentile", "least", "top 10", "top 10, mixed", "rank")
    digits = (5, 5, 4, 3, 3, 4)
    rows = [
        (name, *(f"{x:.{n}f}" for x, n in zip(likeness, digits, strict=True)))
        for name, likeness in found.items()
    ]
    return measure.table(head, rows)


def speed_table(seconds: Mapping[Shape, Mapping[str, float]], base: str) -> str:
    """Lay out milliseconds of `base`, and how many times as fast the others are."""
    names = [name for name in seconds[SHAPES[0]] if name != base]
    rows = [
        (
            f"{rows} × {tokens}",
            f"{taken[base] * 1e3:.1f} ms",
            *(f"{taken[base] / taken[name]:.2f}" for name in names),
        )
        for (rows, tokens), taken in seconds.items()
    ]
    return measure.table(("rows × tokens", base, *names), rows)


def kinds_table(held: HeldOut, cosines: Floats) -> str:
    """Lay out the cosines of release 3 for each kind of text."""
    rows = []
    for index, name in enumerate(KINDS):
        chosen = np.flatnonzero(np.array(held.kinds) == index)
        median = np.median([len(held.tokens[each]) for each in chosen])
        some = cosines[chosen]
        figures = (some.mean(), np.percentile(some, 1), some.min())
        rows.append((name, f"{len(some)}", f"{median:.0f}", *(f"{x:.4f}" for x in figures)))
    head = ("texts", "number", "median tokens", "mean cosine", "1st percentile", "least")
    return measure.table(head, rows)


def files_table(found: Measured) -> str:
    """Lay out sizes, and how far a text's numbers move with the batch it is in."""
    rows = [
        (name, f"{size / 1e6:.1f} MB", f"{found.company[name]:.1e}")
        for name, size in found.sizes.items()
    ]
    return measure.table(("", "file", "moved by its batch"), rows)


def verdict(figure: float, aim: float) -> str:
    """Say whether an aim is met."""
    return f"{figure:.4f} (asked: {aim}; {'met' if figure >= aim else 'MISSED'})"


def report(held: HeldOut, found: Measured) -> str:
    """Write it all up."""
    ours = found.agreements[RELEASE]
    gains = [taken["float32"] / taken[RELEASE] for taken in found.seconds.values()]
    lost = {name: 1e5 * (1 - likeness.mean) for name, likeness in found.parts.items()}
    weights, narrow, undivided = lost.values()
    return f"""# minilm in eight bits

Written by `make quality` (`quality.py`); do not edit. It measured `2/model.onnx` with the SHA-256
`{hashlib.sha256(EIGHT_BITS.read_bytes()).hexdigest()}`.

Machine: {measure.machine()}, one thread; ONNX Runtime {onnxruntime.__version__}, torch
{torch.__version__}. Texts: {len(held.tokens):,} with {sum(map(len, held.tokens)):,} tokens, from
{" and ".join(HELD_OUT)} and those messages of Django's catalogues that calibration did not see
(`texts.py`), at most 256 tokens each, in batches of {measure.ROWS} of like lengths.

- Mean cosine to float32: {verdict(ours.mean, COSINE)}.
- Of a text's ten nearest, so many stay: {verdict(ours.overlap, OVERLAP)}.
- Speed of the bare file against float32: {min(gains):.2f} to {max(gains):.2f} times, by shape. What
  of it arrives behind the gateway, `make bench-micro` measures.

## Likeness to float32

{quality_table(found.agreements)}
*top 10*: share of the ten nearest among all other texts, by cosine, that are the same as with
float32, for {measure.QUERIES:,} queries. *mixed*: queries embedded this way, the others in float32,
as when an index is kept. *rank*: Spearman's correlation of the whole ranking, mean over queries.

Release 3 by kind of text:

{kinds_table(held, found.cosines)}
## Size and company

{files_table(found)}
*moved by its batch*: largest change of any number of {COMPANY} texts' embeddings between a text
alone and in a batch of {measure.ROWS} texts of any length. Scales that are computed of each batch
let neighbours change a result; the fixed ones of release 3 do not.

## Speed

Times as fast as float32, CPU time, medians of {measure.ROUNDS} turns:

{speed_table(found.seconds, "float32")}
## Where the loss comes from

Release 3 with one measure left out, and with nothing but its weights rounded:

{quality_table(found.parts)}
A mean cosine of {ours.mean:.5f} is a loss of {1e5 * (1 - ours.mean):.0f} hundred-thousandths.
Rounded weights alone lose {weights:.0f}; the rest comes with the activations. Without the few
channels that stay float32 it were {narrow:.0f}, without dividing wide channels {undivided:.0f}.

## TorchScript

`minilm_torchscript`, loaded as Triton loads it, against the same float32 ONNX file:

{quality_table(found.scripts)}
Times as fast as its release 1:

{speed_table(found.script_seconds, SERVED)}
## What this does not show

- Whether answers are *better or worse* for a task: the yardstick is the float32 model, not
  people's judgements. No labelled retrieval set is at hand here.
- Other corpora: of these texts many are near one another (parameters of functions, messages of
  one application), so the tenth neighbour is often decided in the third decimal.
- Other CPUs: without eight-bit dot products (VNNI) or bf16 instructions the gains are smaller, or
  none. The file and, but for rounding, its answers are the same everywhere.
"""


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

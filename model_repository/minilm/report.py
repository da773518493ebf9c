"""QUALITY.md from the figures that `quality.py` measures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import measure
import numpy as np
import onnxruntime
import torch
from measure import SHAPES, Agreement, Floats, Shape
from texts import HELD_OUT
from ways import EIGHT_BITS

KINDS = ("paragraphs of docstrings", "whole docstrings", "English messages", "translated messages")
#: What is asked of a faster release: mean cosine and top-10 overlap.
COSINE, OVERLAP = 0.99, 0.95
#: Texts that are also embedded in batches of unlike lengths.
COMPANY = 160
#: Names of ways, here and in `ways.py`.
FLOAT32, FUSED, RELEASE = "float32", "float32, fused by the transformer optimiser", "release 3"
SERVED, TUNED, HALVES = "frozen", "`optimize_for_inference`", "bf16 by autocast, frozen"
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


def span(seconds: Mapping[Shape, Mapping[str, float]], base: str, name: str) -> str:
    """Say how many times as fast as `base` a way is, over the shapes."""
    gains = [taken[base] / taken[name] for taken in seconds.values()]
    return f"{min(gains):.2f} to {max(gains):.2f} times"


def report(held: HeldOut, found: Measured) -> str:
    """Write it all up."""
    ours, halves = found.agreements[RELEASE], found.scripts[HALVES]
    weights, narrow, undivided = (1e5 * (1 - part.mean) for part in found.parts.values())
    plain = found.plain_seconds[SERVED] / found.plain_seconds[HALVES]
    at_lane = found.seconds[LANE][RELEASE], found.script_seconds[LANE][HALVES]
    lane = "{} × {}".format(*LANE)
    return f"""# minilm in eight bits

Written by `make quality` (`quality.py`); do not edit. It measured `2/model.onnx` with the SHA-256
`{hashlib.sha256(EIGHT_BITS.read_bytes()).hexdigest()}`.

Machine: {measure.machine()}, one thread; ONNX Runtime {onnxruntime.__version__}, torch
{torch.__version__}. Texts: {len(held.tokens):,} with {sum(map(len, held.tokens)):,} tokens, from
{" and ".join(HELD_OUT)} and those messages of Django's catalogues that calibration did not see
(`texts.py`), at most {measure.MAX_TOKENS} tokens each, in batches of {measure.ROWS} of like length.

- Mean cosine to float32: {verdict(ours.mean, COSINE)}.
- Of a text's ten nearest, this share stays: {verdict(ours.overlap, OVERLAP)}.
- Speed of the bare file: {span(found.seconds, FLOAT32, RELEASE)} that of float32, by shape
  (asked: 2.0 through the gateway, which `make bench-micro` measures).

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
let neighbours change a result; those of release 3 are fixed.

## Speed

Times as fast as float32, CPU time, medians of {measure.ROUNDS} turns:

{speed_table(found.seconds, FLOAT32)}
The transformer optimiser's fusions make float32 {span(found.seconds, FLOAT32, FUSED)} as fast.
Release 3 has of them those that help, attention and Gelu, and leaves sums apart from
normalisations (`graph.py`). Attention stays float32, and its share grows with the tokens.

## Where the loss comes from

Release 3 with nothing but its weights rounded, and with one measure left out:

{quality_table(found.parts)}
A mean cosine of {ours.mean:.5f} is a loss of {1e5 * (1 - ours.mean):.0f} hundred-thousandths.
Rounded weights alone lose {weights:.0f}; the rest comes with the activations. Without the few
channels that stay float32 it would be {narrow:.0f}, without dividing wide channels {undivided:.0f}.

Neighbours are lost where they are close: between a query's tenth and eleventh lies a cosine of
{found.gap:.4f} (median). So bf16 (below), at a mean cosine of {halves.mean:.5f}, still changes
{1 - halves.overlap:.1%} of the ten nearest.

## TorchScript

`minilm_torchscript`, loaded as Triton loads it, against the same float32 ONNX file:

{quality_table(found.scripts)}
Times as fast as its release 1, which is frozen:

{speed_table(found.script_seconds, SERVED)}
`optimize_for_inference`, saved and loaded, makes it {span(found.script_seconds, SERVED, TUNED)} as
fast, bf16 by autocast {span(found.script_seconds, SERVED, HALVES)}. In a process that may not use
bf16 instructions ({", ".join(PLAIN.values())} at most) that file is {plain:.2f} times as fast at
{lane}. A model file has to serve every CPU, so release 1 stays float32. Who wants speed has it in
`minilm` release 3: {at_lane[0] * 1e3:.0f} ms at {lane}, where bf16 takes {at_lane[1] * 1e3:.0f} ms.

## What this does not show

- Whether answers are better or worse for a task: the yardstick is the float32 model, not people's
  judgements.
- Other corpora: documentation and the messages of one application. Texts of other kinds may
  reach beyond the calibrated ranges, and are cut there.
- Other CPUs: speed depends on their instructions for eight bits (VNNI) and bf16; answers differ
  by rounding.
"""

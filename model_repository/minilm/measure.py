"""Compares ways to run one encoder with the float32 graph: the same texts, interleaved timing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from encoder import WEIGHTS
from numpy.typing import NDArray
from tokenizers import Tokenizer

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
#: Token ids and mask, (rows, tokens) each, to embeddings of unit length, (rows, width).
Run = Callable[[Integers, Integers], Floats]
Shape = tuple[int, int]

MAX_TOKENS = 256
#: Rows of a batch, texts that are searched for, and neighbours that a search would show.
ROWS, QUERIES, NEIGHBOURS = 8, 1000, 10
#: Rows and tokens of the batches that are timed: singles, and what lanes send.
SHAPES: tuple[Shape, ...] = ((1, 8), (1, 24), (8, 16), (8, 40), (8, 128))
#: How often each shape is timed, and tokens of one timing, which is repeated up to that many.
ROUNDS, TOKENS = 15, 640
#: Instructions that decide how fast fewer bits are.
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


class Agreement(NamedTuple):
    """How alike two sets of embeddings are.

    Cosines of each pair; `overlap` of the ten nearest texts, `mixed` with queries from one set and
    the corpus from the other; `rank`, Spearman's correlation of a query's whole ranking.
    """

    mean: float
    percentile: float
    least: float
    overlap: float
    mixed: float
    rank: float


def tokenizer() -> Tokenizer:
    """Return the model's own, cutting as the preprocessors do."""
    found = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(MAX_TOKENS)
    return found


def batch(rows: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """Pad to the longest: token ids and mask, int64 (rows, tokens)."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def embed(run: Run, texts: Sequence[Sequence[int]], rows: int = ROWS) -> Floats:
    """Embed tokenised texts in batches of like lengths, as lanes do; float32 (texts, width)."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    parts = [order[start : start + rows] for start in range(0, len(order), rows)]
    found = [run(*batch([texts[index] for index in part])) for part in parts]
    return np.concatenate(found)[np.argsort(order)]


def agreement(reference: Floats, found: Floats) -> Agreement:
    """Compare embeddings of unit length, (texts, width) each, of texts in random order."""
    cosines = (reference * found).sum(1)
    wanted = _similarities(reference, reference)
    same = _similarities(found, found)
    return Agreement(
        float(cosines.mean()),
        float(np.percentile(cosines, 1)),
        float(cosines.min()),
        _overlap(wanted, same),
        _overlap(wanted, _similarities(found, reference)),
        _rank(wanted, same),
    )


def gap(reference: Floats) -> float:
    """Return by how much the tenth neighbour is nearer than the eleventh: the median of cosines."""
    nearest = -np.sort(-_similarities(reference, reference), 1)
    return float(np.median(nearest[:, NEIGHBOURS - 1] - nearest[:, NEIGHBOURS]))


def seconds(runs: Mapping[str, Run], shape: Shape) -> dict[str, float]:
    """Return the median CPU time of a batch of this shape by name; the runs take turns.

    CPU time of the calling thread, which does all the work: other load does not count.
    """
    rng = random.Random(shape[1])  # noqa: S311 - the same tokens each time
    rows = [[101, *rng.choices(range(1000, 20_000), k=shape[1] - 2), 102] for _ in range(shape[0])]
    ids, mask = batch(rows)
    repeats = max(1, TOKENS // ids.size)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.thread_time()
            for _ in range(repeats):
                run(ids, mask)
            taken[name].append((time.thread_time() - start) / repeats)
    return {name: float(np.median(times[1:])) for name, times in taken.items()}


def company(run: Run, texts: Sequence[Sequence[int]]) -> float:
    """Return how far any number of a text's result moves with the batch it is in."""
    alone = embed(run, texts, 1)
    mixed = np.concatenate(
        [run(*batch(texts[start : start + ROWS])) for start in range(0, len(texts), ROWS)]
    )
    return float(np.abs(alone - mixed).max())


def machine() -> str:
    """Name the CPU and those of its instructions that matter here."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = facts["flags"].split()
    found = ", ".join(name for name in FEATURES if name in flags)
    return f"{facts['model name'].strip()} ({found})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _similarities(queries: Floats, corpus: Floats) -> Floats:
    """Return (queries, texts); a text is not its own neighbour."""
    found = queries[:QUERIES] @ corpus.T
    np.fill_diagonal(found, -1)
    return found


def _overlap(wanted: Floats, found: Floats) -> float:
    pairs = zip(_nearest(wanted), _nearest(found), strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) / NEIGHBOURS for pair in pairs]))


def _nearest(similarities: Floats) -> NDArray[np.intp]:
    return np.argpartition(-similarities, NEIGHBOURS)[:, :NEIGHBOURS]


def _rank(wanted: Floats, found: Floats) -> float:
    ranks = [similarities.argsort().argsort().astype(float) for similarities in (wanted, found)]
    one, other = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    return float(((one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))).mean())

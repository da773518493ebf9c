"""Builds models of random weights, each from a seed of its own, several at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec
import torch

from loadtests.baselines.tokens import Tokens
from loadtests.bert.network import SIZES, Bert, seeded
from loadtests.bert.texts import TOKENIZER
from loadtests.zoo import NOTICE, catalogue, formats

#: Raise it when the same parameters give other files.
FORMAT = 1
MADE = "made.json"


class Made(msgspec.Struct, frozen=True):
    """What a model was made of, written when all its files are there, and its reference."""

    format: int
    size: str
    seed: int
    cases: catalogue.Cases
    notice: str = NOTICE


def write(folder: Path, count: int, size: str) -> None:
    """Write `count` models and the two files about them; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "NOTICE.txt").write_text(f"{NOTICE}\n", encoding="utf-8")
    names = [f"text_{number:03}" for number in range(count)]
    missing = [
        (folder / name, size, seed)
        for seed, name in enumerate(names)
        if _made(folder / name, size, seed) is None
    ]
    if missing:
        workers = min(len(missing), len(os.sched_getaffinity(0)))
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
            for _ in pool.map(_build, missing):
                pass
    cases = {}
    for seed, name in enumerate(names):
        made = _made(folder / name, size, seed)
        if made is None:
            raise RuntimeError(f"{folder / name} was changed meanwhile")
        cases[name] = made.cases
    catalogue.write(folder, {name: catalogue.entry(name, formats.OUTPUT) for name in names}, cases)


def _made(folder: Path, size: str, seed: int) -> Made | None:
    """Return what is there, if it is of these parameters."""
    try:
        made = msgspec.json.decode((folder / MADE).read_bytes(), type=Made)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return made if (made.format, made.size, made.seed) == (FORMAT, size, seed) else None


def _build(given: tuple[Path, str, int]) -> None:
    folder, size, seed = given
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = seeded(SIZES[size], seed)
    formats.checkpoint(model, SIZES[size], folder / "checkpoint")
    formats.graph(model, folder / "model.onnx")
    formats.torchscript(model, folder / "model.pt")
    texts = catalogue.texts()
    made = Made(FORMAT, size, seed, catalogue.Cases(texts, _scores(model, texts)))
    catalogue.publish(folder / MADE, msgspec.json.encode(made))


def _scores(model: Bert, texts: Sequence[str]) -> list[list[float]]:
    """Return the scores of each text, one unpadded at a time."""
    tokens = Tokens(str(TOKENIZER))
    found = []
    for text in texts:
        ids, mask = (torch.from_numpy(array) for array in tokens([text]))
        with torch.inference_mode():
            found += model(ids, mask).tolist()
    return found

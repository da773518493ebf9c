"""The limit: bare ONNX Runtime processes, one a core, each with one thread."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from loadtests.load.service import ROOT

PYTHON = ".venv-models/bin/python"
MODEL = "model_repository/minilm/1/model.onnx"
TOKENIZER = "preprocessors/minilm/src/minilm_preprocessor/tokenizer.json"
#: Rows a batch that are tried: the fastest is the limit.
ROWS = (4, 8, 16)
SCRIPT = "loadtests/load/bare_model.py"


class Limit:
    """As many bare loops as cores, all over the same texts."""

    def __init__(self, texts: Path) -> None:
        self._texts = texts
        self._processes: list[subprocess.Popen[str]] = []
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start the processes; they load in parallel."""
        for _ in os.sched_getaffinity(0):
            self._processes.append(
                subprocess.Popen(  # noqa: S603
                    [PYTHON, SCRIPT, MODEL, TOKENIZER, str(self._texts.absolute())],
                    cwd=ROOT,
                    env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in self._processes:
            self.versions = _read(process)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.communicate()

    def batches(self, size: int, seconds: float) -> dict[str, float]:
        """Run batches of `size` texts of like length in all processes at once.

        Returns texts/s of all together, and their CPU time in ms a text.
        """
        found = self._all("batches", size=size, seconds=seconds)
        rate = sum(item["rows"] / item["seconds"] for item in found)
        rows = sum(item["rows"] for item in found)
        return {"rate": rate, "cpu.all": sum(item["cpu"] for item in found) * 1000 / rows}

    def singles(self, offset: int, seconds: float) -> tuple[dict[str, float], list[float]]:
        """Return texts/s of one process, a text at a time, and each text's milliseconds."""
        found = _ask(self._processes[0], "singles", offset=offset, seconds=seconds)
        rate = found["rows"] / found["seconds"]
        return {"rate": rate, "cpu.all": found["cpu"] * 1000 / found["rows"]}, found["latencies"]

    def embed(self, folder: Path) -> Path:
        """Embed all texts; returns the .npy file (texts, 384), in the corpus' order."""
        paths = [folder.absolute() / f"part{part}.npy" for part in range(len(self._processes))]
        self._all("embed", paths)
        whole = folder / "embeddings.npy"
        np.save(whole, sum(np.load(path) for path in paths))
        return whole

    def _all(self, do: str, paths: list[Path] | None = None, **given: float) -> list[Any]:
        """Have every process do its part, at the same time."""
        parts = len(self._processes)
        for part, process in enumerate(self._processes):
            own = {"path": str(paths[part])} if paths else {}
            _send(process, do, part=part, parts=parts, **own, **given)
        return [_read(process) for process in self._processes]


def _ask(process: subprocess.Popen[str], do: str, **given: float) -> Any:
    _send(process, do, **given)
    return _read(process)


def _send(process: subprocess.Popen[str], do: str, **given: float | str) -> None:
    assert process.stdin  # noqa: S101 - a pipe
    process.stdin.write(json.dumps({"do": do, **given}) + "\n")
    process.stdin.flush()


def _read(process: subprocess.Popen[str]) -> Any:
    assert process.stdout  # noqa: S101 - a pipe
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a bare model process ended by itself; its error is above")
    return json.loads(line)

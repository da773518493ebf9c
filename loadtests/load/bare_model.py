"""A bare ONNX Runtime loop, tokenisation included: no server can be faster on the same cores.

`bare_model.py MODEL TOKENIZER TEXTS` (a JSON list) with the models' Python: one process, one
thread. It reads commands, one JSON a line, and answers each with one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray

#: What the preprocessor keeps of a text, too.
MAX_TOKENS = 256
#: Rows of one call when all texts are embedded for comparison.
EMBED_ROWS = 8
#: Seconds before the clock starts: ONNX Runtime allocates for new shapes.
WARM_UP = 0.3
GOLDEN = (5**0.5 - 1) / 2


class BareModel:
    """One session of one thread with its tokenizer, and the texts sorted by length."""

    def __init__(self, model: str, tokenizer: str, texts: list[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [self._session.get_outputs()[0].name]
        self._tokenizer = tokenizers.Tokenizer.from_file(tokenizer)
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        lengths = [len(self._tokenizer.encode(text).ids) for text in texts]
        self._tokenizer.enable_padding()  # to the longest of the call
        self._texts = texts
        self._sorted = sorted(range(len(texts)), key=lambda index: lengths[index])
        self._streams: dict[tuple[int, int], Iterator[list[str]]] = {}

    def infer(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed texts, padded to the longest: float32 (texts, 384)."""
        found = self._tokenizer.encode_batch_fast(texts)
        ids = np.array([item.ids for item in found], np.int64)
        mask = np.array([item.attention_mask for item in found], np.int64)
        outputs = self._session.run(self._outputs, {"input_ids": ids, "attention_mask": mask})
        embeddings: NDArray[np.float32] = outputs[0]
        return embeddings

    def batches(self, size: int, part: int, parts: int, seconds: float) -> dict[str, Any]:
        """Run batches of nearly equal length, this process its part of them, for some seconds."""
        stream = self._streams.setdefault((size, part), cycle(self._cut(size)[part::parts]))
        self._until(WARM_UP, stream)
        cpu, started = time.process_time(), time.perf_counter()
        rows, _ = self._until(seconds, stream)
        elapsed = time.perf_counter() - started
        return {"rows": rows, "seconds": elapsed, "cpu": time.process_time() - cpu}

    def singles(self, offset: int, seconds: float) -> dict[str, Any]:
        """Run one text after the other in the corpus' order from `offset` on."""
        order = cycle([text] for text in self._texts[offset:] + self._texts[:offset])
        self._until(WARM_UP, cycle([text] for text in self._texts))
        cpu, started = time.process_time(), time.perf_counter()
        rows, latencies = self._until(seconds, order)
        elapsed = time.perf_counter() - started
        spent = time.process_time() - cpu
        return {"rows": rows, "seconds": elapsed, "cpu": spent, "latencies": latencies}

    def embed(self, path: str, part: int, parts: int) -> dict[str, Any]:
        """Save this process's part of all embeddings as .npy; the other rows are zeros."""
        found = np.zeros((len(self._texts), 0), np.float32)
        for start in range(part * EMBED_ROWS, len(self._sorted), parts * EMBED_ROWS):
            rows = self._sorted[start : start + EMBED_ROWS]
            embeddings = self.infer([self._texts[row] for row in rows])
            if not found.size:
                found = np.zeros((len(self._texts), embeddings.shape[1]), np.float32)
            found[rows] = embeddings
        np.save(path, found)
        return {}

    def _cut(self, size: int) -> list[list[str]]:
        """Cut the sorted texts into batches, ordered so that any few of them have all lengths.

        Multiples of the golden ratio fall evenly however many are taken (Weyl's theorem).
        """
        starts = range(0, len(self._sorted), size)
        cuts = [[self._texts[i] for i in self._sorted[start : start + size]] for start in starts]
        keys = [index * GOLDEN % 1 for index in range(len(cuts))]
        ranks = sorted(range(len(cuts)), key=lambda index: keys[index])
        spread = [cuts[0]] * len(cuts)
        for cut, place in zip(cuts, ranks, strict=True):
            spread[place] = cut
        return spread

    def _until(self, seconds: float, stream: Iterator[list[str]]) -> tuple[int, list[float]]:
        """Run calls until the time is over; returns rows and each call's milliseconds."""
        rows, latencies = 0, list[float]()
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            (texts,) = islice(stream, 1)
            self.infer(texts)
            before, now = now, time.perf_counter()
            rows += len(texts)
            latencies.append((now - before) * 1000)
        return rows, latencies


def main(model: str, tokenizer: str, texts: str) -> None:
    """Answer commands until the input ends."""
    bare = BareModel(model, tokenizer, json.loads(Path(texts).read_text()))
    versions = {"onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(bare, command.pop("do"))(**command)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

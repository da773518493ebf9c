"""The raw model loop: what the card does with the same texts and no server at all, at its best.

The texts are tokenised and sorted by length beforehand and wait in pinned memory; the loop copies
a batch to the device, runs the model, and goes on to the next without waiting for the answer. So
neither tokenising nor HTTP nor JSON is in it: the gateway is measured against more than it could
reach. Runs in the models' environment: `python -m loadtests.bert.raw FOLDER SECONDS ROWS…` prints
JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from loadtests.bert.build import MODEL
from loadtests.bert.texts import STEP, texts, wordpiece

WARM_UPS = 3
Batch = tuple[torch.Tensor, torch.Tensor]


class Loop:
    """The model on its device, and the tokens of the texts, the shortest first."""

    def __init__(self, folder: Path, count: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch._C._jit_set_texpr_fuser_enabled(False)  # noqa: SLF001 - as the served config says
        path = folder / "repository" / MODEL / "1/model.pt"
        self._model = torch.jit.load(path, map_location=self.device).eval()
        encode = wordpiece().encode_batch
        tokens = [encoding.ids for encoding in encode(texts(count))]
        self.order = sorted(range(count), key=lambda index: len(tokens[index]))
        self._tokens = [tokens[index] for index in self.order]
        self.mean_tokens = sum(map(len, tokens)) / count

    def scores(self, rows: int) -> list[list[float]]:
        """Return the scores of each text, in the texts' own order."""
        found = self._run(self._batches(rows)).tolist()
        return [found[place] for place in sorted(range(len(found)), key=self.order.__getitem__)]

    def speed(self, rows: int, seconds: float) -> float:
        """Return the rows a second of batches of `rows`."""
        batches = self._batches(rows)
        for _ in range(WARM_UPS):
            self._run(batches)
        done, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds or not done:
            self._run(batches)
            done += len(self._tokens)
        spent = time.perf_counter() - started
        return done / spent

    def _run(self, batches: Sequence[Batch]) -> torch.Tensor:
        """Run every batch; the answers come back to the host together."""
        answers = []
        with torch.inference_mode():
            for ids, mask in batches:
                there = [part.to(self.device, non_blocking=True) for part in (ids, mask)]
                answers.append(self._model(*there))
            return torch.cat(answers).cpu()

    def _batches(self, rows: int) -> list[Batch]:
        found = []
        for start in range(0, len(self._tokens), rows):
            some = self._tokens[start : start + rows]
            ids = torch.zeros(len(some), -(-len(some[-1]) // STEP) * STEP, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for row, tokens in enumerate(some):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
            pin = self.device.type == "cuda"
            found.append((ids.pin_memory(), mask.pin_memory()) if pin else (ids, mask))
        return found


def main() -> None:
    """Measure every batch size, and print it with the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("--texts", type=int, required=True)
    parser.add_argument("--scores", action="store_true", help="print every text's scores, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loop = Loop(arguments.folder, arguments.texts)
    found = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "mean_tokens": loop.mean_tokens,
        "rows_per_second": {rows: loop.speed(rows, arguments.seconds) for rows in arguments.rows},
    }
    if arguments.scores:
        found["scores"] = loop.scores(arguments.rows[0])
    print(json.dumps(found))


if __name__ == "__main__":
    main()

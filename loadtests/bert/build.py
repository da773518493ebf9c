"""Builds what the run serves: `model.pt`, and the preprocessor's package with its golden cases.

Runs in the models' environment: `python -m loadtests.bert.build FOLDER`. The golden results are
those of the float32 weights on the CPU, one unpadded text at a time: what Triton serves (half
precision on a GPU, padded batches) has to come close to them.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path

import torch
from gateway_preprocessor import goldens

from loadtests.bert.network import SIZES, Bert, seeded
from loadtests.bert.texts import STEP, texts, wordpiece

PACKAGE = Path(__file__).parent / "preprocessor"
MODEL = "bert"
CASES = 6
#: Half precision through twelve layers, against float32.
TOLERANCE = 0.02


def scripted(model: Bert, *, half: bool) -> torch.jit.ScriptModule:
    """Compile and freeze the network, in half precision for a GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what Triton serves
        return torch.jit.freeze(torch.jit.script(model.half() if half else model))


def cases(model: Bert) -> list[goldens.Golden]:
    """Compute the golden cases."""
    tokenizer, found = wordpiece(), []
    for number, text in enumerate(texts(CASES, seed=1)):
        ids = torch.tensor(tokenizer.encode(text).ids)
        with torch.inference_mode():
            (scores,) = model(ids[None], torch.ones_like(ids)[None])
        padding = (0, -len(ids) % STEP)
        tensors = {
            "input_ids": torch.nn.functional.pad(ids, padding),
            "attention_mask": torch.nn.functional.pad(torch.ones_like(ids), padding),
        }
        found.append(
            goldens.Golden(
                name=f"text-{number}",
                reference="the float32 weights on the CPU, one unpadded text at a time",
                input=text,
                tensors={key: goldens.Tensor.of(value.numpy()) for key, value in tensors.items()},
                output={"scores": scores.tolist()},
                output_tolerance=TOLERANCE,
            )
        )
    return found


def main() -> None:
    """Write `FOLDER/repository/bert/1/model.pt` and `FOLDER/preprocessor`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--half", action="store_true", help="half precision")
    arguments = parser.parse_args()
    model = seeded(SIZES[arguments.size])
    package = arguments.folder / "preprocessor"
    shutil.copytree(PACKAGE, package, dirs_exist_ok=True)
    goldens.save(cases(model), package / "src/bert_bench_preprocessor")
    path = arguments.folder / "repository" / MODEL / "1/model.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(scripted(model, half=arguments.half), path)


if __name__ == "__main__":
    main()

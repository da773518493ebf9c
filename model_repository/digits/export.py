"""Trains `digits`, proves the ONNX file against torch and publishes held-out figures.

    .venv-models/bin/python model_repository/digits/export.py

Writes `1/model.onnx` and `CARD.md` beside this file and the golden cases of the preprocessor.
Takes about two minutes. The same packages on the same kind of CPU give the same figures.
"""

import argparse
import base64
import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from gateway_preprocessor.goldens import Golden, Tensor, save
from numpy.typing import NDArray
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "preprocessors" / "digits" / "src" / "digits_preprocessor"
# This folder and the preprocessor's source, installed or not.
sys.path[:0] = [str(HERE), str(PACKAGE.parent)]
network = importlib.import_module("network")
render = importlib.import_module("render")
decode = importlib.import_module("digits_preprocessor.decode")
normalise = importlib.import_module("digits_preprocessor.normalise")

SEED = 0
HELD_OUT = 360
#: Renderings of each training image, besides its own array.
RENDERINGS = 8
#: ONNX Runtime and torch add up in different orders.
TOLERANCE = 1e-5
REQUIRED = 0.97

Floats = NDArray[np.float32]


class Split(NamedTuple):
    """Arrays of ink (rows, 8, 8), 0 to 16, and digits (rows,)."""

    train: NDArray[np.float64]
    held_out: NDArray[np.float64]
    train_target: NDArray[np.int64]
    held_out_target: NDArray[np.int64]


def load() -> Split:
    """Hold out the last rows, unshuffled.

    Neighbours in the data set are mostly by the same hand: a shuffled split would show the
    writers of the held-out rows in training.
    """
    data = load_digits()
    images, target = data.images, data.target.astype(np.int64)
    return Split(images[:-HELD_OUT], images[-HELD_OUT:], target[:-HELD_OUT], target[-HELD_OUT:])


def raw(arrays: NDArray[np.float64]) -> Floats:
    """Return the data set's arrays as the model's input, without any preprocessing."""
    return arrays[:, None].astype(np.float32)


def preprocessed(files: list[bytes]) -> Floats:
    """Take files through the preprocessor: (rows, 1, 8, 8)."""
    return np.stack([normalise.normalise(decode.grey(file))[None] for file in files])


def training_set(split: Split) -> tuple[Floats, NDArray[np.int64]]:
    """Each training array as it is, and as the preprocessor sees random renderings of it."""
    random = np.random.default_rng(SEED)
    rendered = (
        preprocessed([render.random_rendering(random).file(array) for array in split.train])
        for _ in range(RENDERINGS)
    )
    sets = [raw(split.train), *rendered]
    return np.concatenate(sets), np.tile(split.train_target, len(sets))


def predict(model: bytes, images: Floats) -> Floats:
    """Run the ONNX file: scores (rows, 10)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": images})
    return scores


def evaluate(model: bytes, split: Split) -> dict[str, float]:
    """Held-out accuracy of the ONNX file: on the arrays, then on files in several renderings."""

    def accuracy(images: Floats) -> float:
        return float((predict(model, images).argmax(axis=1) == split.held_out_target).mean())

    figures = {"the data set's arrays, not preprocessed": accuracy(raw(split.held_out))}
    for rendering in render.PUBLISHED:
        files = [rendering.file(array) for array in split.held_out]
        figures[str(rendering)] = accuracy(preprocessed(files))
    return figures


def goldens(model: torch.nn.Module, split: Split) -> list[Golden]:
    """Render held-out arrays; the arrays themselves and torch say what the files must give."""
    centred = [row for row, array in enumerate(split.held_out) if _fills_the_grid(array)]
    cases = []
    for digit, rendering in enumerate(render.GOLDEN):
        row = next(row for row in centred if split.held_out_target[row] == digit)
        tensor = raw(split.held_out[row : row + 1])
        scores = model.predict(tensor)[0]
        lossy = rendering.format == "JPEG"
        cases.append(
            Golden(
                name=f"held-out row {row}, a {digit}: {rendering}",
                reference="the data set's own array; its scores from torch",
                input={"image": base64.b64encode(rendering.file(split.held_out[row])).decode()},
                tensors={"image": Tensor.of(tensor[0])},
                output={"label": int(scores.argmax()), "scores": scores.tolist()},
                row={"scores": Tensor.of(scores)},
                # What JPEG leaves in the mean of a cell: 2 shades of 240 (0.14 of ink) measured.
                tensor_tolerance=0.3 if lossy else 1e-4,
                output_tolerance=0.01 if lossy else 1e-4,
            )
        )
    return cases


def _fills_the_grid(array: NDArray[np.float64]) -> bool:
    """Whether the ink reaches full strength, top and bottom, and is centred from side to side.

    Such an array is what preprocessing has to give back, whatever the file looked like.
    """
    strong, faint = array >= array.max() / 2, array > array.max() / 8
    columns = np.flatnonzero(faint.any(axis=0))
    return bool(
        array.max() == network.FULL
        and (strong.any(axis=0) == faint.any(axis=0)).all()
        and strong[0].any()
        and strong[-1].any()
        and columns[0] + columns[-1] == array.shape[1] - 1
    )


def card(figures: dict[str, float], difference: float, rows: int) -> str:
    """Write the model card."""
    table = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "scikit-learn"))
    return f"""# digits

Written by `export.py`; do not edit.

A convolutional network that reads one handwritten digit.

- Data: scikit-learn's `load_digits` (the test set of UCI Optical Recognition of Handwritten
  Digits, 1998): {rows} training rows and the last {HELD_OUT} rows held out, unshuffled, because
  neighbouring rows are mostly by the same hand.
- Training: each array as it is and in {RENDERINGS} random renderings (PNG and JPEG; any size, place
  and polarity; some stretched) taken through the preprocessor; distorted anew in each epoch;
  seed {SEED}.
- Input `image` float32 (rows, 1, 8, 8), ink from 0 to 16; output `scores` float32 (rows, 10), the
  probabilities of the digits 0 to 9.

## Held-out accuracy through the ONNX file

All but the first line render each held-out array as a file and take it through the preprocessor.

| held-out images as | accuracy |
| --- | --- |
{table}

With {HELD_OUT} rows, one row is {1 / HELD_OUT:.4f} of accuracy.

## Fidelity

On the held-out rows, ONNX Runtime and torch differ by at most {difference:.1e}
(bound {TOLERANCE:.0e}).

## Limits

One upright digit an image, on an even background. The training data is what 8 x 8 cells can hold:
ornate hands, printed digits and photographs with shadows were not measured. Images of anything
else get the label of some digit.

Made with {packages}.
"""


def main() -> None:
    """Train, prove, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    # One thread: sums do not depend on how many cores there are.
    torch.set_num_threads(1)
    split = load()
    model = network.train(*training_set(split), SEED)
    exported = network.export(model).SerializeToString(deterministic=True)

    images = raw(split.held_out)
    difference = float(np.abs(predict(exported, images) - model.predict(images)).max())
    if difference > TOLERANCE:
        raise SystemExit(f"ONNX and torch differ by {difference}")
    figures = evaluate(exported, split)
    if min(figures.values()) < REQUIRED:
        raise SystemExit(f"held-out accuracy below {REQUIRED}: {figures}")

    target = HERE / "1" / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(exported)
    (HERE / "CARD.md").write_text(card(figures, difference, len(split.train)), encoding="utf-8")
    save(goldens(model, split), PACKAGE)
    lowest, highest = min(figures.values()), max(figures.values())
    print(f"{target.name}: {len(exported)} bytes, held-out accuracy {lowest:.4f} to {highest:.4f}")


if __name__ == "__main__":
    main()

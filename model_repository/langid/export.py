"""Train, evaluate and write the language identifier. Takes about a minute on two cores.

Writes 1/model.pt and CARD.md here, and labels.json and goldens.json into the preprocessor package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training import card, catalogues, fit, goldens, split, torchscript
from training.cases import EVERYDAY
from training.catalogues import Sample
from training.evaluate import LONG, Report, characters, predict, report
from training.text import normalise
from training.weights import Weights

HERE = Path(__file__).resolve().parent
MODEL = Path("1", "model.pt")
ASSETS = HERE.parents[1] / "preprocessors" / "langid" / "src" / "langid_preprocessor"


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=HERE, help="model folder to write to")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="package folder to write to")
    arguments = parser.parse_args()
    export(arguments.model, arguments.assets)


def export(folder: Path, assets: Path) -> None:
    """Train and write the model and its card into `folder`, labels and goldens into `assets`."""
    print("reading the catalogues")
    samples = catalogues.read()
    labels = sorted({sample.language for sample in samples})
    train, held = split.split(samples)
    print(f"training on {len(train)} strings of {len(labels)} languages")
    weights = fit.fit(train, labels)
    torchscript.save(weights, folder / MODEL)
    print(f"evaluating on {len(held)} held-out strings")
    facts = _facts(folder / MODEL, labels, train, held, weights)
    (folder / "CARD.md").write_text(card.render(facts), encoding="utf-8")
    (assets / "labels.json").write_text(json.dumps(labels) + "\n", encoding="utf-8")
    goldens.write(weights, labels, assets)
    print(f"macro accuracy at {LONG} characters or more: {facts.long.macro:.4f}")


def _facts(
    model: Path, labels: list[str], train: list[Sample], held: list[Sample], weights: Weights
) -> card.Facts:
    probabilities = predict(model, [sample.normal for sample in held])

    def between(least: int, most: int) -> Report:
        rows = [i for i, sample in enumerate(held) if least <= characters(sample) <= most]
        return report([held[i] for i in rows], probabilities[rows], labels)

    longest = card.BANDS[-1][1]
    everyday = predict(model, [normalise(text) for text in EVERYDAY.values()])
    return card.Facts(
        labels=labels,
        train=train,
        held=held,
        weights=weights,
        size=model.stat().st_size,
        long=between(LONG, longest),
        every=between(1, longest),
        bands=[(band, between(*band)) for band in card.BANDS],
        everyday=[
            (language, labels[row.argmax()], float(row.max()), text)
            for (language, text), row in zip(EVERYDAY.items(), everyday, strict=True)
        ],
    )


if __name__ == "__main__":
    main()

"""Train, evaluate and write every version of the language identifier. Takes about two minutes.

Writes N/model.pt and CARD.md here. What the versions answer to the golden cases goes into the
preprocessor package for version 1 (goldens.json, with labels.json), and for later ones, which that
package serves as it is, into N/goldens.json here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training import card, catalogues, fit, goldens, split, torchscript
from training.cases import EVERYDAY
from training.catalogues import Sample
from training.evaluate import LONG, characters, predict, report
from training.recipes import RECIPES
from training.text import normalise
from training.weights import Weights

HERE = Path(__file__).resolve().parent
MODEL = "model.pt"
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
    """Train and write the versions and their card into `folder`, labels and goldens beside."""
    print("reading the catalogues")
    samples = catalogues.read()
    labels = sorted({sample.language for sample in samples})
    train, held = split.split(samples)
    (assets / "labels.json").write_text(json.dumps(labels) + "\n", encoding="utf-8")
    figures = []
    for version, recipe in RECIPES.items():
        print(f"version {version}: training on {len(train)} strings of {len(labels)} languages")
        weights = fit.fit(train, labels, recipe)
        target = folder / str(version)
        torchscript.save(weights, target / MODEL)
        if version == min(RECIPES):
            goldens.write(weights, labels, assets)
        else:
            goldens.write_results(weights, labels, target)
        print(f"version {version}: evaluating on {len(held)} held-out strings")
        figures.append(_figures(target / MODEL, labels, held, weights))
        print(f"macro accuracy at {LONG} characters or more: {figures[-1].long.macro:.4f}")
    facts = card.Facts(labels, train, held, list(RECIPES), figures)
    (folder / "CARD.md").write_text(card.render(facts), encoding="utf-8")


def _figures(model: Path, labels: list[str], held: list[Sample], weights: Weights) -> card.Figures:
    probabilities = predict(model, [sample.normal for sample in held])

    def between(least: int, most: int) -> card.Report:
        rows = [i for i, sample in enumerate(held) if least <= characters(sample) <= most]
        return report([held[i] for i in rows], probabilities[rows], labels)

    longest = card.BANDS[-1][1]
    everyday = predict(model, [normalise(text) for text in EVERYDAY.values()])
    return card.Figures(
        weights=weights,
        size=model.stat().st_size,
        long=between(LONG, longest),
        every=between(1, longest),
        bands=[between(*band) for band in card.BANDS],
        everyday=[(labels[row.argmax()], float(row.max())) for row in everyday],
    )


if __name__ == "__main__":
    main()

"""Writes CARD.md from what the export measured."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from training import fit, split
from training.catalogues import LEAST_MESSAGES, Sample
from training.evaluate import LONG, Report
from training.features import LONGEST
from training.weights import Weights

WORST = 12
CONFUSIONS = 15
#: Bands of length in which accuracy is shown, in characters after normalisation.
BANDS = ((1, 9), (10, 19), (20, 39), (40, 79), (80, 10_000))


class Facts(NamedTuple):
    """Everything that the card tells. `everyday` is (language, answer, score, text)."""

    labels: Sequence[str]
    train: Sequence[Sample]
    held: Sequence[Sample]
    weights: Weights
    size: int
    long: Report
    every: Report
    bands: list[tuple[tuple[int, int], Report]]
    everyday: list[tuple[str, str, float, str]]


def render(facts: Facts) -> str:
    """Return the model card as Markdown."""
    return "\n".join(
        [
            *_summary(facts),
            *_data(facts),
            *_accuracy(facts),
            *_languages(facts),
            *_everyday(facts),
            *_limits(),
        ]
    )


def _summary(facts: Facts) -> list[str]:
    weights = facts.weights
    return [
        "# langid: language identification",
        "",
        "Written by `export.py`; do not edit.",
        "",
        f"Says which of {len(facts.labels)} languages a text is in, with a probability for each.",
        "",
        "- Input: `codepoints`, int32, (batch, length), 0 = padding.",
        f"- Output: `scores__0`, float32, (batch, {len(facts.labels)}), probabilities.",
        f"- A sparse linear model over hashed n-grams of 1 to {LONGEST} characters:",
        f"  {len(weights.keys):,} n-grams, {len(weights.weights):,} weights of one byte,",
        f"  {facts.size:,} bytes. Naive Bayes sets the weights, gradient descent refines them.",
        "- N-grams that were not seen in training have no weight, so a text in an unknown script",
        "  gets low, nearly equal probabilities.",
        f"- Made with seeds {fit.SEED} (training) and {split.SEED} (split), numpy",
        f"  {version('numpy')}, scipy {version('scipy')}, torch",
        f"  {version('torch').partition('+')[0]}. Training runs on one thread of numpy and gives",
        "  the same bytes on the same machine; another CPU may round differently.",
        "",
    ]


def _data(facts: Facts) -> list[str]:
    return [
        "## Data and split",
        "",
        f"The translation catalogues in the `django` {version('django')} wheel (BSD-3-Clause,",
        "© Django Software Foundation and individual contributors; Django's translators wrote",
        "them). Left out: strings that equal their English original, fuzzy and obsolete entries,",
        f"and languages with fewer than {LEAST_MESSAGES} translated messages. English comes from",
        "the message ids. Regional variants and scripts count as their language: `pt_BR` is `pt`,",
        "`sr_Latn` is `sr`, `zh_Hans` and `zh_Hant` are `zh` (each script is a class of its own",
        "inside the model; their probabilities are added).",
        "",
        f"{len(facts.train):,} strings for training, {len(facts.held):,} held out. The split is",
        "by English message: a message and all its translations are on one side. Messages that",
        "are near-duplicates stay together: equal without case, spaces, punctuation, digits and",
        f"placeholders, or sharing at least {split.OVERLAP:.0%} of their character 4-grams",
        "(Jaccard index). Training strings that are near-duplicates of a held-out string in any",
        "language are dropped.",
        "",
        "Settings were chosen on a second split of the training strings, made in the same way.",
        "The held-out strings were evaluated once before the last change, the classes by script,",
        "which was judged on the second split; it left the macro accuracy as it was.",
        "",
    ]


def _accuracy(facts: Facts) -> list[str]:
    long, every = facts.long, facts.every
    return [
        "## Accuracy on held-out strings",
        "",
        (
            "Macro accuracy is the mean of the languages' recalls. Length is counted after"
            " normalisation."
        ),
        "",
        "| measure | value |",
        "| --- | --- |",
        f"| macro accuracy, ≥ {LONG} characters | {_percent(long.macro)} |",
        f"| overall accuracy, ≥ {LONG} characters | {_percent(long.overall)} |",
        f"| mean confidence, ≥ {LONG} characters | {_percent(long.confidence)} |",
        f"| strings of ≥ {LONG} characters | {sum(long.support.values())} |",
        f"| macro accuracy, all lengths | {_percent(every.macro)} |",
        f"| overall accuracy, all lengths | {_percent(every.overall)} |",
        "",
        "| characters | strings | overall accuracy | mean confidence |",
        "| --- | --- | --- | --- |",
        *(
            f"| {_band(*band)} | {sum(part.support.values())} | {_percent(part.overall)}"
            f" | {_percent(part.confidence)} |"
            for band, part in facts.bands
        ),
        "",
    ]


def _languages(facts: Facts) -> list[str]:
    long = facts.long
    worst = sorted(long.recall, key=lambda code: (long.recall[code], code))[:WORST]
    rest = sorted(set(long.recall) - set(worst))
    return [
        f"## Languages and confusions (≥ {LONG} characters)",
        "",
        "| weakest languages | accuracy | strings |",
        "| --- | --- | --- |",
        *(f"| {code} | {_percent(long.recall[code])} | {long.support[code]} |" for code in worst),
        "",
        "The others, with their number of strings: "
        + ", ".join(f"{code} {_percent(long.recall[code])} ({long.support[code]})" for code in rest)
        + ".",
        "",
        "| language | taken for | strings |",
        "| --- | --- | --- |",
        *(
            f"| {truth} | {answer} | {number} |"
            for (truth, answer), number in long.confusions[:CONFUSIONS]
        ),
        "",
    ]


def _everyday(facts: Facts) -> list[str]:
    right = sum(language == answer for language, answer, _, _ in facts.everyday)
    return [
        "## Everyday sentences",
        "",
        (
            f"{right} of {len(facts.everyday)} sentences written for this check, one a language"
            " (`training/cases.py`), are told right. The others:"
        ),
        "",
        "| language | taken for | score | text |",
        "| --- | --- | --- | --- |",
        *(
            f"| {language} | {answer} | {score:.2f} | {text} |"
            for language, answer, score, text in facts.everyday
            if language != answer
        ),
        "",
    ]


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        "- The text comes from user interfaces: labels, messages, dates. Colloquial text, names,",
        "  romanised text and mixed languages are outside of it; a few words are often ambiguous.",
        "- Close languages are told apart with less certainty: Bosnian, Croatian and Serbian in",
        "  Latin script; Galician, Portuguese, Spanish and Asturian; Danish and both Norwegians;",
        "  Indonesian and Malay. Their scores show it: look at the runner-up.",
        "- On short texts the scores are too high, as the table by length shows.",
        "- There is no class for other languages. One that is written in a known script is taken",
        "  for its nearest relative; treat low scores as unknown.",
        "- The smallest languages have few held-out strings, so their own figures are rough.",
        "",
    ]


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"


def _band(least: int, most: int) -> str:
    return f"{least}–{most}" if most < BANDS[-1][1] else f"≥ {least}"

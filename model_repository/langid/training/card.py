"""Writes CARD.md from what the export measured of each version."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from training import fit, split
from training.cases import EVERYDAY
from training.catalogues import LEAST_MESSAGES, Sample
from training.evaluate import LONG, Report
from training.features import LONGEST
from training.recipes import RECIPES
from training.weights import Weights

WORST = 12
CONFUSIONS = 15
#: Bands of length in which accuracy is shown, in characters after normalisation.
BANDS = ((1, 9), (10, 19), (20, 39), (40, 79), (80, 10_000))


class Figures(NamedTuple):
    """One version. `bands` follows BANDS; `everyday`, (answer, score), follows EVERYDAY."""

    weights: Weights
    size: int
    long: Report
    every: Report
    bands: list[Report]
    everyday: list[tuple[str, float]]


class Facts(NamedTuple):
    """Everything that the card tells. `figures` are those of `versions`, the oldest first."""

    labels: Sequence[str]
    train: Sequence[Sample]
    held: Sequence[Sample]
    versions: Sequence[int]
    figures: Sequence[Figures]

    @property
    def names(self) -> list[str]:
        """The heads of the versions' columns."""
        return [f"version {number}" for number in self.versions]


def render(facts: Facts) -> str:
    """Return the model card as Markdown."""
    return "\n".join(
        [
            *_summary(facts),
            *_versions(facts),
            *_data(facts),
            *_accuracy(facts),
            *_languages(facts),
            *_everyday(facts),
            *_limits(),
        ]
    )


def _summary(facts: Facts) -> list[str]:
    return [
        "# langid: language identification",
        "",
        "Written by `export.py`; do not edit.",
        "",
        f"Says which of {len(facts.labels)} languages a text is in, with a probability for each.",
        "",
        "- Input: `codepoints`, int32, (batch, length), 0 = padding.",
        f"- Output: `scores__0`, float32, (batch, {len(facts.labels)}), probabilities.",
        f"- A sparse linear model over hashed n-grams of 1 to {LONGEST} characters, one byte a",
        "  weight. Naive Bayes sets the weights, gradient descent refines them.",
        "- N-grams that were not seen in training have no weight, so a text in an unknown script",
        "  gets low, nearly equal probabilities.",
        f"- Made with seeds {fit.SEED} (training) and {split.SEED} (split),",
        f"  numpy {version('numpy')}, scipy {version('scipy')}, torch",
        f"  {version('torch').partition('+')[0]}. Training runs on one thread of numpy and gives",
        "  the same bytes on the same machine; another CPU may round differently.",
        "",
    ]


def _versions(facts: Facts) -> list[str]:
    return [
        "## Versions",
        "",
        "All are trained on the same strings and have the same n-grams, inputs and outputs: one",
        "preprocessor serves them. Version 2 is trained longer, with larger steps, more smoothing",
        "and less dropout; it is right more often, and less too sure of short strings.",
        "",
        *_table(
            ("version", "n-grams", "weights", "bytes", "smoothing", "epochs", "rate", "dropout"),
            [
                (number, f"{len(w.keys):,}", f"{len(w.weights):,}", f"{size:,}", *RECIPES[number])
                for number, (w, size, *_) in zip(facts.versions, facts.figures, strict=True)
            ],
        ),
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
        "Settings of every version were chosen on a second split of the training strings, made in",
        "the same way. For version 1 the held-out strings were evaluated once before the last",
        "change, the classes by script, which was judged on the second split; it left the macro",
        "accuracy as it was. Version 2 was evaluated on them once, with its settings decided.",
        "",
    ]


def _accuracy(facts: Facts) -> list[str]:
    longs = [figures.long for figures in facts.figures]
    everies = [figures.every for figures in facts.figures]
    first, *_, last = (report.right for report in everies)
    return [
        "## Accuracy on held-out strings",
        "",
        "Macro accuracy is the mean of the languages' recalls. Length is counted after",
        f"normalisation; {sum(longs[0].support.values())} strings have {LONG} characters or more.",
        "",
        *_table(
            ("measure", *facts.names),
            [
                (f"macro accuracy, ≥ {LONG} characters", *(_percent(r.macro) for r in longs)),
                (f"overall accuracy, ≥ {LONG} characters", *(_percent(r.overall) for r in longs)),
                ("macro accuracy, all lengths", *(_percent(r.macro) for r in everies)),
                ("overall accuracy, all lengths", *(_percent(r.overall) for r in everies)),
            ],
        ),
        "",
        f"{(last & ~first).sum()} strings are told right by the last version and not by the first,",
        f"{(first & ~last).sum()} the other way round.",
        "",
        "By length, overall accuracy with the mean confidence in parentheses:",
        "",
        *_table(
            ("characters", "strings", *facts.names),
            [
                (
                    _band(*band),
                    sum(parts[0].support.values()),
                    *(f"{_percent(part.overall)} ({_percent(part.confidence)})" for part in parts),
                )
                for band, *parts in zip(BANDS, *(f.bands for f in facts.figures), strict=True)
            ],
        ),
        "",
    ]


def _languages(facts: Facts) -> list[str]:
    longs = [figures.long for figures in facts.figures]
    last = longs[-1]
    worst = sorted(last.recall, key=lambda code: (last.recall[code], code))[:WORST]
    rest = sorted(set(last.recall) - set(worst))
    return [
        f"## Languages and confusions (≥ {LONG} characters)",
        "",
        *_table(
            ("weakest languages", "strings", *facts.names),
            [
                (code, last.support[code], *(_percent(report.recall[code]) for report in longs))
                for code in worst
            ],
        ),
        "",
        f"The others in {facts.names[-1]}, with their number of strings: "
        + ", ".join(f"{code} {_percent(last.recall[code])} ({last.support[code]})" for code in rest)
        + ".",
        "",
        *_table(
            ("language", "taken for", *facts.names),
            [
                (*pair, *(dict(report.confusions).get(pair, 0) for report in longs))
                for pair, _ in last.confusions[:CONFUSIONS]
            ],
        ),
        "",
    ]


def _everyday(facts: Facts) -> list[str]:
    told = zip(EVERYDAY.items(), *(figures.everyday for figures in facts.figures), strict=True)
    wrong = [
        (number, language, answer, f"{score:.2f}", text)
        for (language, text), *answers in told
        for number, (answer, score) in zip(facts.versions, answers, strict=True)
        if language != answer
    ]
    return [
        "## Everyday sentences",
        "",
        f"Of {len(EVERYDAY)} sentences written for this check, one a language",
        "(`training/cases.py`), these are told wrong:",
        "",
        *_table(("version", "language", "taken for", "score", "text"), wrong),
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


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"


def _band(least: int, most: int) -> str:
    return f"{least}–{most}" if most < BANDS[-1][1] else f"≥ {least}"

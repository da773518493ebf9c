"""What training varies from one model version to the next."""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """The settings of one training run.

    `smoothing` is naive Bayes' pseudo-count for an n-gram that a variety does not have, `rate`
    the first step size of gradient descent, which falls to 0 over the `epochs`, and `dropout` the
    share of n-grams left out of each training text, at random.
    """

    smoothing: float
    epochs: int
    rate: float
    dropout: float


#: By model version. A released version keeps its recipe, which trains to the same weights again.
RECIPES = {
    1: Recipe(smoothing=0.01, epochs=4, rate=0.1, dropout=0.5),
    2: Recipe(smoothing=0.05, epochs=16, rate=0.2, dropout=0.3),
}

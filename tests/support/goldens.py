"""Golden cases as requests whose right answers are known from independent references."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from gateway_preprocessor import goldens
from gateway_preprocessor.goldens import Golden

from gateway.preprocessing.installed import load
from gateway.releases.goldens import of_version
from tests.support.stack import ROOT

#: Largest difference that any number of a result may have from its reference, and a batch row
#: from its single: float32 arithmetic in another order.
TOLERANCE = 1e-5

#: Which preprocessor each model of the repository uses.
PREPROCESSORS = {
    "minilm": "minilm-preprocessor",
    "minilm_torchscript": "minilm-preprocessor",
    "langid": "langid-preprocessor",
    "digits": "digits-preprocessor",
    "tumor": "tumor-preprocessor",
}


class Case(NamedTuple):
    """One request of a model with its right result, which is that of version 1."""

    model: str
    golden: Golden

    @property
    def single(self) -> dict[str, Any]:
        """The body of a single request."""
        body = {"input": self.golden.input}
        return body | ({"parameters": self.golden.parameters} if self.golden.parameters else {})

    def wrong(self, output: Any, version: int = 1) -> str | None:
        """Say how `output` differs from a model version's right result; None where it is right."""
        (golden,) = (
            item for item in _goldens(self.model, version) if item.name == self.golden.name
        )
        return goldens.difference(golden.output, output, golden.output_tolerance)


def cases(model: str) -> list[Case]:
    """Return the golden cases of a model."""
    return [Case(model, golden) for golden in _goldens(model, 1)]


@cache
def _goldens(model: str, version: int) -> list[Golden]:
    _, runner = load(PREPROCESSORS[model])
    shipped = goldens.load(type(runner.preprocessor))
    return of_version(ROOT / "model_repository" / model, version, shipped)

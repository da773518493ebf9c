"""Golden cases as requests whose right answers are known from independent references."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway_preprocessor import goldens

from gateway.preprocessing.installed import load

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
    """One request of a model with its right result."""

    model: str
    golden: goldens.Golden

    @property
    def single(self) -> dict[str, Any]:
        """The body of a single request."""
        body = {"input": self.golden.input}
        return body | ({"parameters": self.golden.parameters} if self.golden.parameters else {})

    def wrong(self, output: Any) -> str | None:
        """Say how `output` differs from the right result; None where it is right."""
        return goldens.difference(self.golden.output, output, self.golden.output_tolerance)


def cases(model: str) -> list[Case]:
    """Return the golden cases of a model."""
    _, runner = load(PREPROCESSORS[model])
    return [Case(model, golden) for golden in goldens.load(type(runner.preprocessor))]

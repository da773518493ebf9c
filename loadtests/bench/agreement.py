"""Before an arm is measured, its answers are compared with the reference's."""

from __future__ import annotations

import httpx
import numpy as np
from numpy.typing import NDArray

from loadtests.bench import results
from loadtests.bench.deployment import Deployment
from loadtests.bench.models import Reference
from loadtests.load import protocol

#: The largest difference of any number: float32, other kernels, padding.
TOLERANCE = 1e-3
TIMEOUT = 60


class Disagreement(RuntimeError):
    """An arm's answers are not the models'."""


def agree(deployment: Deployment, most: int | None = None) -> results.Agreement:
    """Ask models for their reference's first text by itself, and for all of them as a batch.

    `most` limits how many models are asked. Raises Disagreement, httpx.HTTPError.
    """
    models = deployment.models
    pairs = list(zip(deployment.targets, models.names, strict=True))[:most]
    differences = [
        _difference(deployment, target.model, models.references[name], count)
        for target, name in pairs
        for count in (1, None)
    ]
    return results.Agreement(deployment.arm, len(pairs), len(differences), max(differences))


def _difference(
    deployment: Deployment, model: str, reference: Reference, count: int | None
) -> float:
    wanted = np.array(reference.outputs[:count], np.float32)
    found = ask(deployment, model, reference.inputs[:count])
    if found.shape != wanted.shape:
        raise Disagreement(f"{deployment.arm}, {model}: {found.shape} instead of {wanted.shape}")
    difference = float(abs(found - wanted).max())
    if not difference <= TOLERANCE:
        raise Disagreement(f"{deployment.arm}, {model}: answers differ by {difference:g}")
    return difference


def ask(deployment: Deployment, model: str, texts: list[str]) -> NDArray[np.float32]:
    """Return the outputs for some texts, (texts, width); a single text goes by itself."""
    path = protocol.path(deployment.protocol, model, len(texts))
    given = protocol.content(deployment.protocol, texts)
    answer = httpx.post(deployment.url + path, json=given, timeout=TIMEOUT).raise_for_status()
    if deployment.protocol == "v2":
        return protocol.tensor(answer.content, int(answer.headers[protocol.JSON_LENGTH]))
    body = answer.json()
    outputs = [body["output"]] if len(texts) == 1 else body["outputs"]
    return np.array([output[deployment.models.answers] for output in outputs], np.float32)

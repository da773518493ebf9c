"""The architectures that the gateway is compared with, each a working service of its kind.

They serve the models of a `models.json` (see `loadtests.zoo`) and are started, from the root of
the repository, as `PYTHON -m loadtests.baselines.NAME --models … --host … --port … --settings …`.
README.md tells how each is made, and why so.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Baseline(NamedTuple):
    """One architecture. Paths are relative to the root of the repository.

    `protocol`: `predict` answers `POST /<model>_single_predict` and `_batch_predict`, ready at
    `GET /readyz`; `v2` is Triton's own HTTP: `POST /v2/models/<model>_ensemble/infer` with a BYTES
    tensor TEXT (rows, 1), ready at `GET /v2/health/ready`.
    """

    name: str
    title: str
    description: str
    python: str
    settings: str
    protocol: Literal["predict", "v2"]


_MODELS = ".venv-models/bin/python"


def _baseline(
    name: str,
    title: str,
    description: str,
    python: str = _MODELS,
    protocol: Literal["predict", "v2"] = "predict",
) -> Baseline:
    settings = f"loadtests/baselines/{name}/settings.toml"
    return Baseline(name, title, description, python, settings, protocol)


ARMS = {
    arm.name: arm
    for arm in (
        _baseline(
            "flask_transformers",
            "Gunicorn + Flask + Transformers",
            "Gunicorn workers with threads; each keeps the eight models last used",
        ),
        _baseline(
            "tornado_torch",
            "Tornado + PyTorch",
            "a Tornado dispatcher and one Tornado process a model, which runs TorchScript",
        ),
        _baseline(
            "tornado_onnx",
            "Tornado + ONNX Runtime",
            "a Tornado dispatcher and one Tornado process a model, which runs ONNX",
        ),
        _baseline(
            "triton_ensemble",
            "Triton with preprocessing inside",
            "an ensemble of a Python tokenizer and the ONNX model, called over HTTP",
            python=".venv/bin/python",
            protocol="v2",
        ),
    )
}

"""Releases that do not fit: what is wrong with each, and how that is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.releases.lock import LockedRelease
from tests.support.stack import ROOT
from tests.support.variants import MODEL, Workshop, replace

MODELS_PYTHON = ".venv-models/bin/python"
#: Turns every leaf of the trees around: malignant becomes benign.
NEGATE = """
import sys, onnx
model = onnx.load(sys.argv[1])
for attribute in model.graph.node[0].attribute:
    if attribute.name in ("base_values", "class_weights"):
        attribute.floats[:] = [-value for value in attribute.floats]
onnx.save(model, sys.argv[1])
"""
DIE = '__import__("os")._exit(3)\n        '
HANG = '__import__("time").sleep(3600)\n        '
PREPROCESS, POSTPROCESS = "rows = np.array(", "verdicts = []"
IMPORT = "_MEASURES = ("


@dataclass(frozen=True)
class Case:
    """What is wrong with release 2, and a characteristic part of the reason it is rejected for.

    `edits` and `goldens` are replacements in the preprocessor's module and its golden cases;
    `lock` says who locks it; `spoil` is what happens after it was locked.
    """

    name: str
    reason: str
    edits: Mapping[str, str] = field(default_factory=dict)
    goldens: Mapping[str, str] = field(default_factory=dict)
    most_goldens: int | None = None
    model_version: int = 1
    lock: str = "project"
    spoil: Callable[[Workshop, LockedRelease], None] = lambda workshop, locked: None


def replace_weights(workshop: Workshop, locked: LockedRelease) -> None:
    path = workshop.folder / "2/model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def turn_around(weights: Path) -> None:
    subprocess.run([MODELS_PYTHON, "-c", NEGATE, str(weights)], cwd=ROOT, check=True)


def remove_version(workshop: Workshop, locked: LockedRelease) -> None:
    shutil.rmtree(workshop.folder / "2")


def rebuild_wheel(workshop: Workshop, locked: LockedRelease) -> None:
    """Give the locked version's wheel another line; the locked one was never installed here."""
    module = workshop.settings.preprocessors / MODEL / "src/tumor_preprocessor/preprocessor.py"
    replace(module, {'"""Name the more probable class."""': '"""Name the likelier class."""'})
    assert workshop.wheel().digest != locked.wheel


def other_dependency(workshop: Workshop, locked: LockedRelease) -> None:
    (metadata,) = workshop.site_packages(locked).glob("msgspec-*.dist-info/METADATA")
    text = re.sub(r"(?m)^Version: .*$", "Version: 0.19.0", metadata.read_text())
    metadata.unlink()  # a new file: the installed one may be linked to uv's cache
    metadata.write_text(text)


def extra_dependency(workshop: Workshop, locked: LockedRelease) -> None:
    info = workshop.site_packages(locked) / "surprise-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: surprise\nVersion: 1.0\n")


CASES = [
    Case(
        "swapped vocabulary",
        "features[0]: 29.81 instead of 15.13 (± 0.0); 6 numbers differ, by up to 19.6 (",
        {'"radius",\n    "texture",': '"texture",\n    "radius",'},
    ),
    Case(
        "renamed tensor",
        "the model has no input 'measurements', only ['features']",
        {'TensorSpec("features"': 'TensorSpec("measurements"', '{"features":': '{"measurements":'},
        {'"tensors": {"features"': '"tensors": {"measurements"'},
    ),
    Case(
        "wrong dtype",
        "input 'features': float64 is declared, the model has FP32",
        {
            '"features", "float32"': '"features", "float64"',
            '"features": row}': '"features": row.astype(np.float64)}',
        },
        {'{"features": {"dtype": "float32"': '{"features": {"dtype": "float64"'},
    ),
    Case(
        "wrong shape",
        "input 'features': [1, 30] is declared, the model has [30]",
        {
            '"float32", (len(FEATURES),)': '"float32", (1, len(FEATURES))',
            '"features": row}': '"features": row[None]}',
        },
        {'"shape": [30]': '"shape": [1, 30]'},
    ),
    Case(
        "wrong labels order",
        "$.label: 'benign' instead of 'malignant'",
        {'= ("malignant", "benign")': '= ("benign", "malignant")'},
    ),
    Case(
        "golden off by more than the tolerance",
        "(± 1e-05)",
        {'float(row["probabilities"][best])': 'float(row["probabilities"][best]) - 1e-3'},
    ),
    Case(
        "weights replaced in place",
        "model file 2/model.onnx changed",
        model_version=2,
        spoil=replace_weights,
    ),
    Case(
        "missing model version",
        "model file 2/model.onnx is missing",
        model_version=2,
        spoil=remove_version,
    ),
    Case("wheel rebuilt with a changed line", "ash mismatch", lock="hand", spoil=rebuild_wheel),
    Case(
        "another version of a dependency",
        "dependency msgspec is 0.19.0, locked is",
        spoil=other_dependency,
    ),
    Case(
        "an extra dependency",
        "dependency surprise==1.0 is installed but not locked",
        spoil=extra_dependency,
    ),
    Case(
        "crash at import",
        "the worker exited with code 1",
        {IMPORT: "raise RuntimeError\n" + IMPORT},
        lock="hand",
    ),
    Case(
        "hang at import", "not started within", {IMPORT: HANG.strip() + "\n" + IMPORT}, lock="hand"
    ),
    Case(
        "crash at preprocess",
        "preprocess failed: A worker was lost (the worker died)",
        {PREPROCESS: DIE + PREPROCESS},
        most_goldens=1,
    ),
    Case("hang at preprocess", "no reply within", {PREPROCESS: HANG + PREPROCESS}, most_goldens=1),
    Case(
        "crash at postprocess",
        "postprocess failed: it cost two worker processes",
        {POSTPROCESS: DIE + POSTPROCESS},
        most_goldens=1,
    ),
    Case(
        "hang at postprocess", "no reply within", {POSTPROCESS: HANG + POSTPROCESS}, most_goldens=1
    ),
    Case("not locked", "it is not locked", lock="nobody"),
]

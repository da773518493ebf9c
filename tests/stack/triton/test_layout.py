"""Environments that a Triton cannot run in: each is told before it starts."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.triton import layout
from gateway.triton.embedded import EmbeddedTriton
from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.layout import EmbeddedTritonError
from tests.support.stack import ROOT

PROBE = {
    "missing": [],
    "pytriton": None,
    "minor": "3.11",
    "glibc": "glibc 2.36",
    "libpython": None,
}


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("/nowhere/bin/python", "cannot run: No such file or directory; `make install`"),
        (sys.executable, "has no nvidia-pytriton, onnxruntime; `make install`"),
    ],
)
async def test_an_environment_without_triton(
    options: EmbeddedOptions, python: str, reason: str
) -> None:
    triton = EmbeddedTriton(replace(options, python=Path(python)))
    with pytest.raises(EmbeddedTritonError, match=reason):
        await triton.start()
    assert reason.split(";", maxsplit=1)[0] in triton.status.reason


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"glibc": "glibc 2.31"}, r"needs glibc 2\.35 .* this system has glibc 2\.31"),
        ({"glibc": ""}, "this system has another C library"),
        ({"minor": "3.14"}, r"no stub for Python 3\.14 .* it has 3\.[89], 3\.[89], 3\.1"),
        ({"missing": ["numpy"]}, "has no numpy"),
    ],
)
def test_an_environment_that_does_not_fit(found: dict[str, Any], reason: str) -> None:
    (package,) = (ROOT / ".venv-models").glob("lib/python*/site-packages/pytriton")
    with pytest.raises(EmbeddedTritonError, match=reason):
        layout.Installation.from_probe(Path("python"), {**PROBE, "pytriton": str(package), **found})


async def test_a_stub_without_its_libraries(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    stub.write_text(
        "#!/bin/sh\necho 'stub: error while loading shared libraries: libpython3.11.so.1.0' >&2\n"
    )
    stub.chmod(0o755)
    installation = layout.Installation(tmp_path, tmp_path, tmp_path, None)
    with pytest.raises(EmbeddedTritonError, match=r"cannot start: .*libpython3\.11\.so\.1\.0"):
        await installation.check(os.environ)

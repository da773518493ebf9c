"""A preprocessor that crashes, hangs or forks when told to, run by real workers."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

from gateway.preprocessing.worker_processes import PoolOptions

DISTRIBUTION = "poison-preprocessor"
MODULE = '''
"""Does what its input says."""

import os
import time
from pathlib import Path

import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, TensorSpec


HOARD = []


class Poison(Preprocessor):
    input_type = str
    parameters_type = NoParameters
    output_type = str
    tensors = (TensorSpec("length", "int64", (1,)),)
    outputs = (TensorSpec("length", "int64", (1,)),)
    examples = (Example("hello"),)

    def preprocess(self, instances, parameters):
        for text in instances:
            obey(text)
        return [
            Prepared(
                {"length": np.array([len(text)])}, object() if text == "unwritable" else text
            )
            for text in instances
        ]

    def postprocess(self, rows, contexts):
        for text in contexts:
            obey(text.removeprefix("later "))
        return [f"{text} {os.getpid()}" for text in contexts]


def obey(text):
    order, _, argument = text.partition(" ")
    if order == "sleep":
        time.sleep(float(argument))
    elif order == "grow":
        HOARD.append(b"x" * (int(argument) << 20))
    elif order == "crash":
        os._exit(3)
    elif order == "hang":
        while True:
            time.sleep(1)
    elif order == "once":  # an accident: the second time all is well
        if not Path(argument).exists():
            Path(argument).touch()
            os._exit(3)
    elif order == "orphan":  # leaves a child behind that has its sockets
        if not (child := os.fork()):
            time.sleep(60)
            os._exit(0)
        Path(argument).write_text(str(child))
        os._exit(3)
'''
GOLDEN = {
    "name": "hello",
    "reference": "by hand",
    "input": "hello",
    "tensors": {"length": {"dtype": "int64", "shape": [1], "data": [5]}},
    "output": "hello",
}


def install(folder: Path) -> Path:
    """Install the preprocessor in a folder; return an interpreter that finds it there."""
    package = folder / "poison_preprocessor"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE)
    (package / "goldens.json").write_text(json.dumps([GOLDEN]))
    described = folder / "poison_preprocessor-1.0.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: 1\n"
    )
    (described / "entry_points.txt").write_text(
        "[gateway.preprocessors]\npoison = poison_preprocessor:Poison\n"
    )
    python = folder / "python"
    python.write_text(
        textwrap.dedent(f"""\
            #!/bin/sh
            shift  # -I would hide the folder
            PYTHONPATH={folder} exec {sys.executable} "$@"
            """)
    )
    python.chmod(0o755)
    return python


def options(
    folder: Path, *, size: int = 2, call_seconds: float = 10.0, growth_bytes: int = 0
) -> PoolOptions:
    """Return the options of a pool of such workers, whose sockets are in `folder`."""
    return PoolOptions(
        python=install(folder / "installed"),
        distribution=DISTRIBUTION,
        folder=folder / "w",
        size=size,
        start_seconds=60.0,
        call_seconds=call_seconds,
        growth_bytes=growth_bytes,
    )

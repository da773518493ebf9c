"""Starts it: `python -m loadtests.baselines.tornado_onnx --help`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from loadtests.baselines import options
from loadtests.baselines.catalogue import Model
from loadtests.baselines.dispatched import start
from loadtests.baselines.dispatched.service import Runner


def runner(model: Model, intra_op: int) -> Runner:
    """Open a session, which all threads of the process share."""
    given = onnxruntime.SessionOptions()
    given.intra_op_num_threads = intra_op
    given.inter_op_num_threads = 1
    # A spinning pool would take the cores from the other models' processes.
    given.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.onnx, given, providers=["CPUExecutionProvider"])
    outputs = [f"{model.output}__0"]

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[Any]:
        found: NDArray[Any]
        (found,) = session.run(outputs, {"input_ids": ids, "attention_mask": mask})
        return found

    return run


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    given = options.parse("Tornado and ONNX Runtime, one process a model")
    settings = given.read(start.Settings)
    start.run(given, settings, lambda model: runner(model, settings.intra_op))


if __name__ == "__main__":
    main()

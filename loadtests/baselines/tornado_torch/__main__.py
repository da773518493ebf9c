"""Starts it: `python -m loadtests.baselines.tornado_torch --help`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loadtests.baselines import options
from loadtests.baselines.catalogue import Model
from loadtests.baselines.dispatched import start
from loadtests.baselines.dispatched.service import Runner


def runner(model: Model, intra_op: int) -> Runner:
    """Load a TorchScript module, which all threads of the process share."""
    torch.set_num_threads(intra_op)
    # The fuser compiles for every new shape, in the middle of the traffic.
    torch._C._jit_set_texpr_fuser_enabled(False)  # noqa: SLF001 - it has no other name
    module = torch.jit.load(model.torchscript, map_location="cpu").eval()

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[Any]:
        with torch.inference_mode():
            found: NDArray[Any] = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return found

    return run


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    given = options.parse("Tornado and TorchScript, one process a model")
    settings = given.read(start.Settings)
    start.run(given, settings, lambda model: runner(model, settings.intra_op))


if __name__ == "__main__":
    main()

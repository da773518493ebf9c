"""A model that nobody asks, and whose instance dies, is found and mended before a client asks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.goldens import cases
from tests.support.stack import Stack, serve

SECONDS = 60


@pytest.mark.parametrize("model", ["tumor", "minilm"])
def test_a_dead_instance_of_an_idle_model_is_found(tmp_path: Path, model: str) -> None:
    """`tumor` has one instance, `minilm` two."""
    stack = serve(tmp_path, models=model)
    try:
        before = instances(stack, model)
        os.kill(min(before), signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        with stack.client() as client:
            while len(instances(stack, model) - before) < len(before):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            while client.get("/readyz").json()["status"] != "ready":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            # No request has found the dead one, or had to wait for the reload.
            case = cases(model)[0]
            answer = client.post(f"/{model}_single_predict", json=case.single)
            assert case.wrong(answer.json()["output"]) is None
        lines = stack.log.read_text().splitlines()
        named = [line for line in lines if '"event":"degraded"' in line]
        assert f'"{model} on triton ' in named[0]
        assert sum('"event":"reloading a model"' in line for line in lines) == 1
    finally:
        stack.interrupt()


def instances(stack: Stack, model: str) -> set[int]:
    part = f"models/{model}/1/"
    return {each.pid for each, line in stack.commands.items() if part in " ".join(line)}

"""Traces one warm single request inside a gateway process: files, functions, calls, switches.

`python -m tests.support.trace [MODEL]` prints the figures, and each call with `-v`. Counted are
calls (a resumed coroutine counts again) of functions in `gateway/` and in the contract; a switch is
a call in another file than the call before it. The fewer, the easier a request is to follow.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import uvloop

from gateway.app import Gateway
from gateway.settings import Settings
from gateway.telemetry import logs

WARM_UPS = 50
ROUNDS = 3
PACKAGES = ("/gateway/", "/gateway_preprocessor/")


class Trace(NamedTuple):
    """The calls of one request, as (file, function), in order."""

    calls: list[tuple[str, str]]

    @property
    def files(self) -> int:
        """How many files it touches."""
        return len({file for file, _ in self.calls})

    @property
    def functions(self) -> int:
        """How many functions it runs, comprehensions included."""
        return len(set(self.calls))

    @property
    def switches(self) -> int:
        """How often the next call is in another file."""
        files = [file for file, _ in self.calls]
        return sum(one != other for one, other in itertools.pairwise(files))


async def trace(model: str, folder: Path) -> Trace:
    """Start a gateway with its own Triton, and trace a request of `model` once it is warm."""
    settings = Settings(
        port=0,
        models=(model,),
        run_dir=folder,
        log_file=folder / "gateway.log",
        watch_seconds=60,  # nothing else is to run meanwhile
    )
    gateway = Gateway(settings, logs.configure(settings), say=lambda _: None)
    try:
        await gateway.start()
        await gateway.ready()
        routes = gateway.predictor.routing.of(model)
        example = next(iter(routes.batchers.values())).description.examples[0]
        body = json.dumps({"input": example["input"]})
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port)

        def ask() -> int:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/{model}_single_predict", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        for _ in range(WARM_UPS):
            await asyncio.to_thread(ask)
        # The watch on Triton may look in between; the shortest trace has the request alone.
        return min([await _traced(ask) for _ in range(ROUNDS)], key=lambda found: len(found.calls))
    finally:
        await gateway.stop()


async def _traced(ask: Any) -> Trace:
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and any(package in code.co_filename for package in PACKAGES):
            calls.append((code.co_filename, code.co_qualname))

    await asyncio.sleep(0.2)
    answered = asyncio.get_running_loop().run_in_executor(None, ask)
    sys.setprofile(note)
    try:
        assert await answered == 200
        await asyncio.sleep(0.05)  # what follows the answer: its log line, the next request's turn
    finally:
        sys.setprofile(None)
    return Trace(calls)


def main() -> None:
    """Print the figures of a model's request."""
    model = next((item for item in sys.argv[1:] if item != "-v"), "tumor")
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(trace(model, Path(folder)))
    if "-v" in sys.argv:
        for file, function in found.calls:
            print(Path(file).stem, function)
    print(f"{found.files} files, {found.functions} functions, {found.switches} switches")


if __name__ == "__main__":
    main()

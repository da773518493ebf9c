"""Starts it: `python -m loadtests.baselines.triton_ensemble --help`.

Runs in the gateway's environment, whose launcher knows how the embedded Triton is laid out; the
gateway itself takes no part. Triton's HTTP listens once every model is loaded, so that its own
readiness is the service's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from gateway.triton import launcher, layout
from loadtests.baselines import options
from loadtests.baselines.triton_ensemble import repository

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-ensemble/bin/python"
#: Seconds that Triton gets to finish, beyond its own patience.
GRACE = launcher.EXIT_TIMEOUT_S + 5


async def serve(given: options.Options, folder: Path) -> int:
    """Run Triton until SIGTERM or SIGINT, or until it ends by itself; returns its exit code."""
    repository.write(folder / "repository", given.models, given.read(repository.Settings))
    chosen = launcher.EmbeddedOptions(
        repository=folder / "repository",
        python=PYTHON,
        backends=ROOT / "deploy/triton/backends",
        run_dir=folder / "run",
        canary=ROOT / "deploy/triton/canary",
    )
    installation = await layout.Installation.find(PYTHON)
    environment = launcher.environment(chosen, installation)
    with launcher.lock(chosen), launcher.lay_out(chosen, installation) as log:
        await installation.check(environment)
        process = await asyncio.create_subprocess_exec(
            *launcher.command(chosen, installation, (0, given.port, 0)),
            *("--load-model=*", f"--http-address={given.host}"),
            *("--allow-grpc=false", "--allow-metrics=false"),
            cwd=chosen.run_dir,
            env=environment | {"TOKENIZERS_PARALLELISM": "false"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # its group is killed at the end, whatever it left
        )
        try:
            return await _ended(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            launcher.remove_shared_memory(chosen)
            if process.returncode:
                print(launcher.log_tail(chosen), file=sys.stderr)


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Wait for Triton's end, which a signal to this process begins."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    asked, ended = asyncio.create_task(told.wait()), asyncio.create_task(process.wait())
    await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        asked.cancel()
        return ended.result() or 1
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended, GRACE)
    return 0


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    given = options.parse("Triton with an ensemble a model, called over its own HTTP")
    # Beside the models, for hard links; in a folder of its own, so that several may run.
    with tempfile.TemporaryDirectory(prefix=".ensemble-", dir=_beside(given)) as folder:
        sys.exit(asyncio.run(serve(given, Path(folder))))


def _beside(given: options.Options) -> Path:
    onnx = next(iter(given.models.values())).onnx
    return Path(onnx).parents[1]


if __name__ == "__main__":
    main()

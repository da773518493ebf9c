"""What a gateway that serves nobody says of releases: for `gateway check` and `gateway lock`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.app import Gateway
from gateway.control.states import ReleaseState
from gateway.errors import public
from gateway.releases import lock, manifest
from gateway.releases.lock import Lock
from gateway.settings import Settings
from gateway.telemetry import logs
from gateway.triton.layout import EmbeddedTritonError

#: Give up on the verification of releases that are to be locked anew after this many seconds.
SECONDS = 600.0


class Verdict(NamedTuple):
    """A release and whether it is aligned; for a model that cannot be read, `release` is empty."""

    model: str
    release: str
    preprocessor: str
    verdict: str
    reason: str

    @property
    def aligned(self) -> bool:
        """Whether the release may be served."""
        return self.verdict == ALIGNED


ALIGNED = "aligned"


@contextmanager
def alone(config: Settings) -> Iterator[Settings]:
    """Give settings with a working folder and a port of their own, beside any running gateway."""
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        yield config.model_copy(
            update={
                "port": 0,
                "host": "127.0.0.1",
                "processes": 1,
                "run_dir": Path(folder),
                "state_dir": None,
                "ready_requires": (),
            }
        )


async def verdicts(config: Settings, seconds: float) -> list[Verdict]:
    """Start a gateway, wait until each release is ready or rejected, and stop it.

    Raises whatever prevents a start.
    """
    deadline = time.monotonic() + seconds
    gateway = Gateway(config, logs.configure(config), say=lambda _: None)
    try:
        await gateway.start()
        while time.monotonic() < deadline:
            models = gateway.reconciler.models if gateway.reconciler else {}
            found = [one.status for state in models.values() for one in state.runtimes.values()]
            if all(status.state.decided for status in found):
                break
            await asyncio.sleep(0.1)
        return list(_now(gateway))
    finally:
        await gateway.stop()


def _now(gateway: Gateway) -> Iterator[Verdict]:
    models = gateway.reconciler.models if gateway.reconciler else {}
    for model, item in sorted(models.items()):
        if item.declaration.problem:
            yield Verdict(model, "", "", "broken", public(item.declaration.problem))
    for model, item in sorted(models.items()):
        for name, runtime in sorted(item.runtimes.items()):
            state, reason = runtime.status
            verdict = ALIGNED if state is ReleaseState.READY else str(state)
            preprocessor = runtime.definition.release.preprocessor
            yield Verdict(model, name, preprocessor, verdict, reason)


async def verify(config: Settings, model: str, releases: Collection[str], new: Lock) -> list[str]:
    """Verify releases against a lock that is not written yet, on an embedded Triton.

    Returns the reason for each that may not be served.
    """
    with alone(config) as own:
        repository = own.run_dir / "repository"
        _copied(config.repository / model, repository / model, new)
        try:
            found = await verdicts(
                own.model_copy(
                    update={
                        "repository": repository,
                        "models": (),
                        "triton": (),
                        "log_file": own.run_dir / "gateway.log",
                    }
                ),
                SECONDS,
            )
        except (EmbeddedTritonError, OSError) as error:
            return [f"release {', '.join(releases)}: it cannot be verified here: {error}"]
    return [
        f"release {item.release}: {item.verdict}: {item.reason}"
        for item in found
        if not item.aligned and item.release in {*releases, ""}
    ]


def _copied(folder: Path, target: Path, new: Lock) -> None:
    """Make a model's folder anew with another lock; the versions' files stay where they are."""
    target.mkdir(parents=True)
    shutil.copyfile(folder / manifest.FILE, target / manifest.FILE)
    lock.write(target, new)
    for path in folder.iterdir():
        if path.name not in (manifest.FILE, lock.FILE):
            (target / path.name).symlink_to(path.absolute())

"""Asks again for what was lost with a worker: each instance alone, once, while somebody waits.

So no instance is lost with a worker, and the one that ends workers (a crash in a native library, an
endless loop) fails alone. Suspects take turns: of a pool's workers they occupy one at a time, over
all gateways of the host, so that everybody else keeps the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog
from gateway_preprocessor import wire

from gateway.errors import ReleaseNotReady
from gateway.preprocessing.losses import BrokenOff, NotBegun, Poisonous, Suspect, Wait, WorkerLost
from gateway.system.files import Busy, hold

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: Times that a call is sent anew which was lost, each time, before its worker began with it.
ATTEMPTS = 3
#: Seconds between two attempts to have the turn that another gateway has.
TURN = 0.05


class Ask(Protocol[T]):
    """Asks a worker for these items; `alone` keeps everything else away from it meanwhile."""

    async def __call__(
        self, items: Sequence[Any], waits: Sequence[Wait], *, alone: bool = False
    ) -> list[T | Exception]:
        """Return a result for each item. Raises WorkerLost, ReleaseNotReady."""


class Isolation:
    """The suspects of one pool.

    `trials` has the requests of which an instance is being asked again, by what they wait for.
    """

    def __init__(self, distribution: str, folder: Path) -> None:
        self.trials: dict[Wait, asyncio.Task[None]] = {}
        self._distribution = distribution
        self._lock = folder / "suspects.lock"
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all trials; their instances fail."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ask(
        self, ask: Ask[T], items: Sequence[Any], waits: Sequence[Wait]
    ) -> list[T | Exception]:
        """Ask for a call; instances of requests that are on trial wait for its outcome.

        Otherwise a batch of poisonous instances would cost workers for each of its calls. Results
        may be Suspects.
        """
        held = [wait in self.trials for wait in waits]
        if any(held):
            return await self._ask_divided(ask, items, waits, held)
        try:
            return await ask(items, waits)
        except WorkerLost as error:
            return await self.again(ask, items, waits, error)

    async def _ask_divided(
        self, ask: Ask[T], items: Sequence[Any], waits: Sequence[Wait], held: Sequence[bool]
    ) -> list[T | Exception]:
        """Ask at once for what is not `held`, and for the rest once its trials are over."""
        trials = {self.trials[wait] for wait in waits if wait in self.trials}
        later = [at for at, is_held in enumerate(held) if is_held]
        suspects = {at: Suspect(asyncio.get_running_loop().create_future()) for at in later}

        async def when_tried() -> None:
            try:
                await asyncio.wait(trials)
                theirs = [waits[at] for at in later]
                late: list[T | Exception]
                late = await self.ask(ask, [items[at] for at in later], theirs)
                for suspect, result in zip(suspects.values(), await settled(late), strict=True):
                    suspect.answer.set_result(result)
            finally:
                _resolve(suspects.values())

        self._spawn(when_tried())
        now = [at for at, is_held in enumerate(held) if not is_held]
        results: dict[int, T | Exception] = dict(suspects)
        if now:
            found = await self.ask(ask, [items[at] for at in now], [waits[at] for at in now])
            results |= dict(zip(now, found, strict=True))
        return [results[at] for at in range(len(items))]

    async def again(
        self, ask: Ask[T], items: Sequence[Any], waits: Sequence[Wait], lost: WorkerLost
    ) -> list[T | Exception]:
        """Ask again for a call that was lost with its worker: as it was, if it had not begun."""
        for _ in range(ATTEMPTS):
            if not isinstance(lost, NotBegun):
                break
            try:
                return await ask(items, waits)
            except WorkerLost as error:
                lost = error
        log.warning(
            "worker lost",
            distribution=self._distribution,
            reason=str(lost),
            instances=len(items),
            requests=len(set(waits)),
        )
        suspects = [Suspect(asyncio.get_running_loop().create_future()) for _ in items]
        for wait in dict.fromkeys(waits):
            chosen = [at for at, other in enumerate(waits) if other is wait]
            trial = self._try(ask, [(items[at], suspects[at]) for at in chosen], wait, lost)
            task = self.trials[wait] = self._spawn(trial)
            task.add_done_callback(lambda _, wait=wait: self.trials.pop(wait, None))  # type: ignore[misc]
        return list(suspects)

    async def _try(
        self,
        ask: Ask[T],
        suspects: Sequence[tuple[Any, Suspect]],
        wait: Wait,
        lost: WorkerLost,
    ) -> None:
        """Ask for a request's suspects in turn, while it waits: up to one that fails it."""
        try:
            for item, suspect in suspects:
                async with self.turn(wait):
                    if wait.done():
                        return
                    outcome = await self._alone(ask, item, wait, lost)
                    suspect.answer.set_result(outcome)
                    if isinstance(outcome, Poisonous):
                        return
        finally:
            _resolve([suspect for _, suspect in suspects])

    async def _alone(self, ask: Ask[T], item: Any, wait: Wait, lost: WorkerLost) -> T | Exception:
        for _ in range(ATTEMPTS):
            try:
                (result,) = await ask([item], [wait], alone=True)
            except NotBegun as error:
                lost = error
            except BrokenOff as error:
                return wire.WorkerFailure(str(error))  # no input's fault
            except WorkerLost as error:
                told = f"it cost two worker processes, the second while it was alone: {error}"
                if not wait.done():
                    log.error("an instance is poisonous", distribution=self._distribution)  # noqa: TRY400
                return Poisonous(told)
            except ReleaseNotReady:
                break
            else:
                return result
        return ReleaseNotReady(f"A worker was lost ({lost}), and no other could be asked in time.")

    @asynccontextmanager
    async def turn(self, wait: Wait | None = None) -> AsyncIterator[None]:
        """Have the turn among all gateways that share the pool; none once `wait` is done."""
        async with self._turn:
            file = None
            while wait is None or not wait.done():
                try:
                    file = hold(self._lock)
                except Busy:
                    await asyncio.sleep(TURN)
                    continue
                except OSError:  # the folder was swept away: take turns within this gateway
                    log.warning("suspects of other gateways are not seen", folder=self._lock.parent)
                break
            with file or nullcontext():
                yield

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def settled(results: Sequence[T | Exception]) -> list[T | Exception]:
    """Wait for the outcomes of all suspects among the results."""
    return [await each.answer if isinstance(each, Suspect) else each for each in results]


def _resolve(suspects: Iterable[Suspect]) -> None:
    """Let nobody wait for those that are not asked for any more."""
    for suspect in suspects:
        if not suspect.answer.done():
            suspect.answer.set_result(wire.WorkerFailure("its worker died; it was not asked again"))

"""Makes what is served follow what is declared: watches `releases.toml`, proves, routes, retires.

Every gateway runs one; those that share a repository converge, as the files are all the state
there is. Traffic that is declared comes into force once all releases in it are proven; until
then the traffic that was in force goes on, even over a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from gateway.preprocessing.workers import Workers
from gateway.releases import lock, manifest
from gateway.releases.manifest import Manifest, ManifestError
from gateway.serving.live import Live
from gateway.serving.pipeline import Pipeline, Traffic
from gateway.serving.readiness import Readiness
from gateway.serving.standing import Standing
from gateway.serving.turns import Turns
from gateway.settings import Settings
from gateway.system import limits
from gateway.triton.cluster import Cluster
from gateway.triton.control import Version

log = structlog.get_logger(__name__)

#: Seconds after which a version that no release names any more is unloaded: other gateways of the
#: same Triton may notice the change a little later, and their requests take their time.
UNLOAD_SECONDS = 35.0


class Fleet:
    """All live releases of one gateway. `say` tells people of each step."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        workers: Workers,
        pipeline: Pipeline,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._workers = workers
        self._pipeline = pipeline
        self._turns = Turns(limits.most_calls(settings))
        self._say = say
        self._standing = Standing(settings.state / "traffic")
        self._settled: set[str] = set()  # models that are done starting
        self._manifests: dict[str, Manifest] = {}
        self._lives: list[Live] = []  # the oldest first
        self._retiring: list[Live] = []  # those that still have requests to answer
        self._seen: object = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read what is declared and begin to follow it. Raises ManifestError, LockError."""
        await self._read()
        self._spawn(self._watch())
        self._spawn(Readiness(self._pipeline).watch(self._settings.watch_seconds))

    async def close(self) -> None:
        """Stop following, and let go of every worker."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(live.close() for live in (*self._lives, *self._retiring)))

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.watch_seconds):
                    await self._cluster.changed.wait()
            self._cluster.changed.clear()
            try:
                await self._look()
            except (ManifestError, lock.LockError) as error:
                # What was declared before goes on; whoever edited the file reads why.
                if self._pipeline.notices.get("releases") != str(error):
                    log.error("declared releases cannot be read", reason=str(error))  # noqa: TRY400
                self._pipeline.notices["releases"] = str(error)
            except Exception:
                log.exception("following the declared releases failed")

    async def _look(self) -> None:
        seen = await asyncio.to_thread(manifest.signature, self._settings.repository)
        if changed := seen != self._seen:
            await self._read()
        for live in self._lives:
            live.retry(now=changed)
        for live in (*self._lives, *self._retiring):
            live.advance()
        for model in self._manifests:
            self._route(model)

    async def _read(self) -> None:
        """Read all declarations; start what is new in them."""
        repository = self._settings.repository
        self._seen = await asyncio.to_thread(manifest.signature, repository)
        declared = await asyncio.to_thread(manifest.read, repository, self._settings.models)
        locks = {m: await asyncio.to_thread(lock.read, repository / m) for m in declared}
        self._pipeline.notices.pop("releases", None)
        for model, item in declared.items():
            found = locks[model]
            for name, release in item.loaded.items():
                live = Live(
                    repository / model,
                    name,
                    release,
                    found.releases.get(name) if found else None,
                    self._cluster,
                    self._workers,
                    self._turns,
                    self._settings,
                )
                known = next((x for x in self._lives if x.definition == live.definition), None)
                if known:
                    self._lives.remove(known)  # declared again, it is the newest again
                else:
                    self._say(f"loading {model}, release {name}: {release.preprocessor}")
                    live.start()
                self._lives.append(known or live)
        for model in self._manifests.keys() - declared.keys():
            self._pipeline.traffic.pop(model, None)
            self._retire([live for live in self._lives if live.model == model])
        self._manifests = declared
        for model in declared:
            self._route(model)

    def _route(self, model: str) -> None:
        """Put the declared traffic into force if all of it is proven; retire what is obsolete."""
        item = self._manifests[model]
        current: dict[
            str, Live
        ] = {}  # who answers for a name: its newest proven definition, or else its newest
        newest: dict[str, Live] = {}
        for live in (live for live in self._lives if live.model == model):
            newest[live.name] = live
            if live.proven or not (live.name in current and current[live.name].proven):
                current[live.name] = live
        weights = self._in_force(item, current, model)
        self._pipeline.traffic[model] = Traffic(current, weights, item)
        kept = {name for name in current if name in item.loaded or weights.get(name)}
        self._retire(
            [
                live
                for live in self._lives
                if live.model == model
                and not (live.name in kept and live in (current[live.name], newest[live.name]))
            ]
        )

    def _in_force(self, item: Manifest, lives: dict[str, Live], model: str) -> dict[str, int]:
        """Choose the weights: as declared if all are proven, else as before, else what there is."""
        now = self._pipeline.traffic.get(model)
        before = now.weights if now else self._standing.read(model)
        declared = {name: weight for name, weight in item.traffic.items() if weight}
        proven = {name for name, live in lives.items() if live.proven}
        if declared.keys() <= proven:
            self._standing.keep(model, declared)
            self._settled.add(model)
            return declared
        known = {name: weight for name, weight in before.items() if name in lives} or declared
        decided = proven | {name for name, live in lives.items() if live.rejected}
        if model not in self._settled and not (
            known.keys() <= proven or (known.keys() | declared.keys()) <= decided
        ):
            return known  # it is starting: until that is done, nobody is given another's share
        self._settled.add(model)
        return (
            {name: weight for name, weight in known.items() if name in proven}
            or {name: weight for name, weight in declared.items() if name in proven}
            or known
        )

    def _retire(self, lives: list[Live]) -> None:
        for live in lives:
            self._lives.remove(live)
            self._retiring.append(live)
            self._spawn(self._end(live))

    async def _end(self, live: Live) -> None:
        """End a release after its last request, and unload its version once nobody names it."""
        log.info("release retires", model=live.model, release=live.name)
        await live.idle()
        self._retiring.remove(live)
        await live.close()
        if not self._used(live.version):
            await asyncio.sleep(UNLOAD_SECONDS)
        if not self._used(live.version):
            await self._cluster.drop(live.version)

    def _used(self, version: Version) -> bool:
        return any(live.version == version for live in self._lives)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

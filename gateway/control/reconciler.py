"""Makes what runs follow what is declared, and publishes the routing table.

It watches `releases.toml`, starts releases, applies traffic and retires obsolete releases. Every
gateway runs one; gateways that share a repository converge, because the files hold all the state. A
model whose files cannot be read keeps its releases and affects no other model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import structlog

from gateway.control import declarations, effect, traffic
from gateway.control.announcer import Announcer
from gateway.control.applied_traffic import AppliedTraffic
from gateway.control.canary import Canaries
from gateway.control.declarations import Declaration
from gateway.control.definition import Definition
from gateway.control.effect import Effect
from gateway.control.model_state import ModelState
from gateway.control.release_runtime import ReleaseRuntime, Resources
from gateway.releases import manifest
from gateway.releases.manifest import Manifest, ManifestError
from gateway.serving.predict import Predictor
from gateway.serving.routing import RoutingTable
from gateway.telemetry import metrics
from gateway.triton.model_control import ModelVersion

log = structlog.get_logger(__name__)

#: Seconds before a version that no release names any more is unloaded: other gateways on the same
#: Triton may notice the change later, and still have requests in flight.
UNLOAD_SECONDS = 35.0


class Reconciler:
    """Runs the releases of one gateway. `say` prints each step for people.

    `models` holds each model's state as of the last check; `problem` says why a check failed.
    """

    def __init__(
        self, resources: Resources, predictor: Predictor, say: Callable[[str], None]
    ) -> None:
        self.models: Mapping[str, ModelState] = {}
        self.problem = ""
        self._settings = resources.settings
        self._resources = resources
        self._predictor = predictor
        self._announcer = Announcer(say)
        self._applied = AppliedTraffic(resources.settings.state / "traffic")
        self._started: set[str] = set()  # models that have started
        self._declarations: dict[str, Declaration] = {}
        self._runtimes: list[ReleaseRuntime] = []  # oldest first
        self._retiring: list[ReleaseRuntime] = []  # still answering requests
        self._seen: object = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = False
        self._canaries = Canaries(resources.triton)

    @property
    def started(self) -> bool:
        """Whether every declared model has started, successfully or not."""
        return self._seen is not None and self._started >= self._declarations.keys()

    async def start(self) -> None:
        """Read the declarations and start to follow them. Raises ManifestError."""
        await self._read()
        self._publish()
        self._spawn(self._watch())

    async def settled(
        self, model: str, declared: Manifest, seconds: float, loads: str | None = None
    ) -> Effect | None:
        """Wait until a model's new declaration is in force or refused; see `effect.settled`."""
        self._resources.triton.changed.set()  # look now instead of a moment later
        return await effect.settled(lambda: self.models, model, declared, seconds, loads)

    def look_now(self) -> None:
        """Read all declarations anew and try rejected releases again, at once."""
        self._asked = True
        self._resources.triton.changed.set()

    async def close(self) -> None:
        """Stop following the declarations and close every release."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._canaries.close()
        await asyncio.gather(*(one.close() for one in (*self._runtimes, *self._retiring)))

    async def _watch(self) -> None:
        changed = self._resources.triton.changed
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.watch_seconds):
                    await changed.wait()
            changed.clear()
            try:
                await self._reconcile()
                self.problem = ""
            except ManifestError as error:
                if self.problem != str(error):
                    log.error("the repository cannot be read", reason=str(error))  # noqa: TRY400
                self.problem = str(error)
            except Exception:
                log.exception("reconciling failed")

    async def _reconcile(self) -> None:
        settings = self._settings
        seen = await asyncio.to_thread(manifest.signature, settings.repository, settings.models)
        asked, self._asked = self._asked, False
        if changed := asked or seen != self._seen:
            await self._read()
        for runtime in self._runtimes:
            runtime.retry(now=changed)
        for runtime in (*self._runtimes, *self._retiring):
            runtime.advance()
        self._canaries.look(self._runtimes)
        self._publish()

    async def _read(self) -> None:
        """Read all declarations and start new releases."""
        repository, models = self._settings.repository, self._settings.models
        seen = await asyncio.to_thread(manifest.signature, repository, models)
        before = self._declarations
        found = await asyncio.to_thread(declarations.read, repository, models, before)
        self._seen = seen
        for model, declaration in found.items():
            if declaration.problem:
                self._started.add(model)
            if declaration.problem != before.get(model, Declaration()).problem:
                metrics.MODEL_BROKEN.labels(model).set(bool(declaration.problem))
                self._announcer.broken(model, declaration.problem)
            self._start_releases(model, declaration)
        for model in before.keys() - found.keys():
            self._started.discard(model)
            metrics.MODEL_BROKEN.labels(model).set(0)
            self._retire([one for one in self._runtimes if one.definition.model == model])
        self._declarations = found

    def _start_releases(self, model: str, declaration: Declaration) -> None:
        if declaration.manifest is None:
            return
        locked = declaration.lock.releases if declaration.lock else {}
        for name, release in declaration.manifest.loaded.items():
            definition = Definition(model, name, release, locked.get(name))
            runtime = next((one for one in self._runtimes if one.definition == definition), None)
            if runtime:
                self._runtimes.remove(runtime)  # declared again: the newest again
            else:
                self._announcer.loading(model, name, release.preprocessor)
                runtime = ReleaseRuntime(definition, self._resources)
                runtime.start()
            for older in (*self._runtimes, *self._retiring):
                if older.definition[:2] == (model, name):
                    older.successor = runtime
            runtime.successor = None
            self._runtimes.append(runtime)

    def _publish(self) -> None:
        """Apply traffic, publish the routing table and report changes."""
        models = {model: self._model(model, item) for model, item in self._declarations.items()}
        self.models = models
        self._predictor.routing = RoutingTable(
            {model: state.routes(model) for model, state in models.items()}
        )
        self._announcer.look(models)

    def _model(self, model: str, declaration: Declaration) -> ModelState:
        """Choose each release's runtime and the weights; retire obsolete runtimes."""
        declared = declaration.manifest
        if declared is None:
            return ModelState(declaration)
        current: dict[
            str, ReleaseRuntime
        ] = {}  # per name: the newest verified one, or else the newest
        newest: dict[str, ReleaseRuntime] = {}
        for runtime in (one for one in self._runtimes if one.definition.model == model):
            name = runtime.definition.name
            newest[name] = runtime
            if runtime.verified or not (name in current and current[name].verified):
                current[name] = runtime
        weights = self._apply(model, declared, current)
        kept = {name for name in current if name in declared.loaded or weights.get(name)}
        self._retire(
            [
                one
                for one in self._runtimes
                if one.definition.model == model
                and not (
                    one.definition.name in kept
                    and one in (current[one.definition.name], newest[one.definition.name])
                )
            ]
        )
        shown = {name: runtime for name, runtime in current.items() if name in kept}
        newer = {name: newest[name] for name in shown if newest[name] is not current[name]}
        return ModelState(declaration, shown, weights, newer, model in self._started)

    def _apply(
        self, model: str, declared: Manifest, runtimes: Mapping[str, ReleaseRuntime]
    ) -> Mapping[str, int]:
        now = self.models.get(model)
        applied = traffic.apply(
            declared.traffic,
            now.weights if now and now.weights else self._applied.read(model),
            frozenset(name for name, one in runtimes.items() if one.verified),
            {name: one.status.state for name, one in runtimes.items()},
            started=model in self._started,
        )
        if applied.started:
            self._started.add(model)
        if applied.as_declared:
            self._applied.keep(model, dict(applied.weights))
        return applied.weights

    def _retire(self, runtimes: list[ReleaseRuntime]) -> None:
        for runtime in runtimes:
            self._runtimes.remove(runtime)
            self._retiring.append(runtime)
            self._spawn(self._end(runtime))

    async def _end(self, runtime: ReleaseRuntime) -> None:
        """Close a release after its last request; unload its version once no release names it."""
        model, name, *_ = runtime.definition
        log.info("release retires", model=model, release=name)
        if runtime.batcher:
            await self._predictor.in_flight.none(runtime.batcher)
        self._retiring.remove(runtime)
        await runtime.close()
        version = runtime.definition.version
        if not self._used(version):
            await asyncio.sleep(UNLOAD_SECONDS)
        if not self._used(version):
            await self._resources.triton.drop(version)

    def _used(self, version: ModelVersion) -> bool:
        return any(one.definition.version == version for one in self._runtimes)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""The whole gateway: Triton, lanes and HTTP put together, started and stopped in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.errors import public
from gateway.http import admin
from gateway.http.base import UnknownRoute, record
from gateway.http.health import Live, Metrics, Ready
from gateway.http.models import Model, Models, ModelShadow
from gateway.http.predict import BATCH, SINGLE, Predict
from gateway.http.server import Server
from gateway.preprocessing.workers import Workers
from gateway.releases import lock, manifest
from gateway.serving.fleet import Fleet
from gateway.serving.live import PASSING
from gateway.serving.pipeline import Pipeline
from gateway.serving.shadow import Shadows
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.triton.cluster import Cluster
from gateway.triton.configs import Configs
from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton

log = structlog.get_logger(__name__)

#: A body this many times over the limit is still read away to tell its sender kindly.
READ_AWAY = 16


def application(pipeline: Pipeline, shadows: Shadows, settings: Settings) -> Application:
    """Return the Tornado application: every route of the gateway, one a line."""
    serving = {"pipeline": pipeline}
    shadowed = {"pipeline": pipeline, "shadows": shadows}
    predict = {**shadowed, "settings": settings}
    return Application(
        [
            (r"/([^/]+)_single_predict", Predict, {"form": SINGLE, **predict}),
            (r"/([^/]+)_batch_predict", Predict, {"form": BATCH, **predict}),
            (r"/models", Models, serving),
            (r"/models/([^/]+)", Model, serving),
            (r"/models/([^/]+)/shadow", ModelShadow, shadowed),
            *admin.routes(settings),
            (r"/livez", Live),
            (r"/readyz", Ready, serving),
            (r"/metrics", Metrics, serving),
        ],
        default_handler_class=UnknownRoute,
        log_function=record,
    )


def embedded(
    settings: Settings, on_ready: Callable[[], Awaitable[None]] | None = None
) -> EmbeddedTriton:
    """Return the embedded Triton, not started yet."""
    return EmbeddedTriton(
        EmbeddedOptions(
            repository=settings.repository.resolve(),
            python=settings.models_python.absolute(),
            backends=(settings.triton_deploy / "backends").resolve(),
            canary=(settings.triton_deploy / "canary").resolve(),
            run_dir=(settings.run_dir / "triton").resolve(),
            grpc_port=settings.triton_grpc_port,
            http_port=settings.triton_http_port,
            metrics_port=settings.triton_metrics_port,
            threads=settings.triton_threads,
        ),
        on_ready=on_ready,
    )


class Gateway:
    """One gateway process. `say` tells people what is going on while it starts."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._triton: EmbeddedTriton | None = None
        self._cluster: Cluster | None = None
        self._server: Server | None = None
        self._fleet: Fleet | None = None
        self._workers = Workers(settings)
        self.pipeline = Pipeline(self._notices)
        self._shadows = Shadows(self.pipeline)
        self.port = 0

    async def start(self) -> None:
        """Start everything and begin to listen; raises what keeps it from starting.

        HTTP answers before the models are loaded: `/readyz` tells how far they are. A gateway
        that shares its port would take requests from those that are ready, and waits.
        """
        settings = self._settings
        manifest.read(settings.repository, settings.models)  # before Triton starts in vain
        if not settings.shares_port:
            self._server = self._listen()
        endpoints = settings.triton or (await self._start_triton(),)
        repository = settings.repository
        self._cluster = Cluster(
            endpoints,
            Configs(repository),
            lambda version: lock.digest_model(repository / version[0], version[1]),
            mends=settings.mends_models or self._triton is not None,
        )
        self._cluster.start()
        self._fleet = Fleet(settings, self._cluster, self._workers, self.pipeline, self._say)
        await self._fleet.start()

    async def ready(self) -> None:
        """Wait until every release that gets traffic can be served, telling of each."""
        told: set[str] = set()
        while self.pipeline.problems():
            self._tell(told)
            await asyncio.sleep(0.05)
        self._tell(told)
        self._server = self._server or self._listen()

    def _tell(self, told: set[str]) -> None:
        lives = [live for item in self.pipeline.traffic.values() for live in item.lives.values()]
        for live in lives:
            name = f"{live.model}, release {live.name}"
            state, reason = live.state
            line = f"{state}: {name}" + (f": {reason}" if reason else "")
            if reason not in PASSING and line not in told:
                told.add(line)
                self._say(line)

    async def stop(self) -> None:
        """Refuse new requests, finish those under way, then stop Triton. Leaves no process.

        Also after a start that failed or was cut short.
        """
        self.pipeline.draining = True
        if self._server:
            self._server.stop()
            try:
                async with asyncio.timeout(self._settings.drain_seconds):
                    await self.pipeline.idle.wait()
            except TimeoutError:
                log.warning("requests were cut off")
            await self._server.close_all_connections()
        await self._shadows.close()
        if self._fleet:
            await self._fleet.close()
        if self._cluster:
            await self._cluster.close()
        if self._triton:
            await self._triton.stop()

    def _notices(self) -> dict[str, str]:
        if self._triton is None or self._triton.status.state == "running":
            return {}
        status = self._triton.status
        reason = public(status.reason)
        return {"triton": f"{status.state} after {status.restarts} restarts: {reason}"}

    async def _start_triton(self) -> str:
        settings = self._settings
        self._say("starting Triton")
        self._triton = embedded(settings, self._triton_ready)
        await self._triton.start()
        return self._triton.grpc_endpoint

    async def _triton_ready(self) -> None:
        if self._triton:
            metrics.TRITON_RESTARTS.set(self._triton.status.restarts)

    def _listen(self) -> Server:
        settings = self._settings
        try:
            sockets = bind_sockets(settings.port, settings.host, reuse_port=settings.shares_port)
        except OSError as error:
            place = f"host {settings.host}, port {settings.port}"
            raise OSError(f"{place}: {error.strerror or error}") from None
        server = Server(
            application(self.pipeline, self._shadows, settings),
            max_body_size=READ_AWAY * settings.max_body_bytes,
        )
        server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        return server

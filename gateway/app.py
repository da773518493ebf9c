"""The whole gateway: Triton, control plane, serving and HTTP, started and stopped in order."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

import structlog
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.control.readiness import Readiness
from gateway.control.reconciler import Reconciler
from gateway.control.release_runtime import Resources
from gateway.control.states import GatewayState
from gateway.errors import public
from gateway.http import admin
from gateway.http.base import BodyRoom, UnknownRoute, record
from gateway.http.health import Live, Metrics, Ready
from gateway.http.models import Identity, Model, Models, ModelShadow
from gateway.http.predict import BATCH, SINGLE, Predict
from gateway.http.server import Bounds, Server, install_loop
from gateway.preprocessing.workers import Workers
from gateway.releases import lock, manifest
from gateway.serving.limiter import CallLimiter
from gateway.serving.predict import Predictor
from gateway.settings import Settings
from gateway.system import limits
from gateway.system.supervision import ChildState
from gateway.telemetry.logs import RequestLog
from gateway.triton.channel import Tls
from gateway.triton.configs import Configs
from gateway.triton.embedded import EmbeddedTriton
from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.pool import TritonPool

log = structlog.get_logger(__name__)

#: A body up to this many times over the limit is drained, so that the client still gets a 413.
DRAINED = 16


def application(
    predictor: Predictor,
    reconciler: Reconciler,
    readiness: Readiness,
    settings: Settings,
    requests: RequestLog,
) -> Application:
    """Return the Tornado application: with every route."""
    room = BodyRoom(settings.max_bodies_bytes)
    predict = {"predictor": predictor, "settings": settings, "room": room}
    identity = Identity(secrets.token_hex(4), settings.processes)
    models = {"reconciler": reconciler, "shadows": predictor.shadows, "identity": identity}
    health = {"readiness": readiness, "reconciler": reconciler}
    return Application(
        [
            (r"/([^/]+)_single_predict", Predict, {"form": SINGLE, **predict}),
            (r"/([^/]+)_batch_predict", Predict, {"form": BATCH, **predict}),
            (r"/models", Models, models),
            (r"/models/([^/]+)", Model, models),
            (r"/models/([^/]+)/shadow", ModelShadow, models),
            *admin.routes(settings, reconciler),
            (r"/livez", Live),
            (r"/readyz", Ready, health),
            (r"/metrics", Metrics, health),
        ],
        default_handler_class=UnknownRoute,
        log_function=partial(record, requests),
    )


def embedded(settings: Settings) -> EmbeddedTriton:
    """Return the embedded Triton, not yet started."""
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
        )
    )


def _tls(settings: Settings) -> Tls | None:
    """Return the files for TLS to Triton; None if it is not used."""
    if settings.triton_ca is None:
        return None
    return Tls(settings.triton_ca, settings.triton_certificate, settings.triton_key)


class Gateway:
    """One gateway process. `say` prints progress for people.

    With `shares_port`, other gateways listen on the same port (SO_REUSEPORT): this one starts to
    listen only once it is ready, so that it takes no requests from those that are.
    """

    def __init__(
        self,
        settings: Settings,
        requests: RequestLog,
        say: Callable[[str], None],
        *,
        shares_port: bool = False,
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._say = say
        self._shares_port = shares_port
        self._triton: EmbeddedTriton | None = None
        self._pool: TritonPool | None = None
        self._server: Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self.predictor = Predictor()
        self.reconciler: Reconciler | None = None
        self.readiness: Readiness | None = None
        self.port = 0

    async def start(self) -> None:
        """Start everything and begin to listen; raises whatever prevents that.

        HTTP answers before the models are loaded: `/readyz` reports their progress.
        """
        settings = self._settings
        manifest.read_each(settings.repository, settings.models)  # fail before Triton has started
        if settings.triton:
            endpoints = settings.triton
        else:
            self._triton = embedded(settings)
            endpoints = (self._triton.grpc_endpoint,)
        repository = settings.repository
        self._pool = TritonPool(
            endpoints,
            Configs(repository),
            lambda version: lock.digest_model(repository / version.model, version.number),
            reloads=settings.reload_failing_models or self._triton is not None,
            tls=_tls(settings),
        )
        limiter = CallLimiter(limits.most_calls(settings))
        resources = Resources(settings, self._pool, Workers(settings), limiter)
        self.reconciler = Reconciler(resources, self.predictor, self._say)
        self.readiness = Readiness(
            settings, self.predictor, self.reconciler, self._pool, self._triton_problem
        )
        if not self._shares_port:
            self._server = self._listen(self.reconciler, self.readiness)
        if self._triton:
            self._say("starting Triton")
            await self._triton.start()
        self._pool.start()
        await self.reconciler.start()
        self._watch = asyncio.create_task(self.readiness.watch())

    async def ready(self) -> None:
        """Wait until requests can be answered."""
        assert self.reconciler  # noqa: S101 - it has started
        assert self.readiness  # noqa: S101 - the same
        while self.readiness.status().state is GatewayState.NOT_READY:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self._server = self._server or self._listen(self.reconciler, self.readiness)

    def look_now(self) -> None:
        """Look at the declarations and at rejected releases at once."""
        if self.reconciler:
            self.reconciler.look_now()

    async def stop(self) -> None:
        """Refuse new requests, finish those in flight, then stop Triton. Leaves no process.

        Safe after a start that failed or was interrupted.
        """
        self.predictor.draining = True
        if self._server:
            self._server.stop()
            try:
                async with asyncio.timeout(self._settings.drain_seconds):
                    await self.predictor.in_flight.none()
                    await self._server.flushed()
            except TimeoutError:
                log.warning("requests cut off at shutdown")
            await self._server.close_all_connections()
        await self.predictor.shadows.close()
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self.reconciler:
            await self.reconciler.close()
        if self._pool:
            await self._pool.close()
        if self._triton:
            await self._triton.stop()

    def _triton_problem(self) -> str:
        """Return why the embedded Triton is down; empty if it runs or there is none."""
        if self._triton is None or self._triton.status.state is ChildState.RUNNING:
            return ""
        status = self._triton.status
        return f"{status.state} after {status.restarts} restarts: {public(status.reason)}"

    def _listen(self, reconciler: Reconciler, readiness: Readiness) -> Server:
        settings = self._settings
        install_loop()
        try:
            sockets = bind_sockets(settings.port, settings.host, reuse_port=self._shares_port)
        except OSError as error:
            place = f"host {settings.host}, port {settings.port}"
            raise OSError(f"{place}: {error.strerror or error}") from None
        server = Server(
            application(self.predictor, reconciler, readiness, settings, self._requests),
            Bounds.of(settings),
            max_body_size=DRAINED * settings.max_body_bytes,
        )
        server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        return server

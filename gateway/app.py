"""The whole gateway: Triton, lanes and HTTP put together, started and stopped in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.http import admin
from gateway.http.base import UnknownRoute, record
from gateway.http.health import Live, Metrics, Ready
from gateway.http.models import Model, Models
from gateway.http.predict import BATCH, SINGLE, Predict
from gateway.preprocessing.installed import load
from gateway.preprocessing.threads import InlineWorker
from gateway.releases import manifest
from gateway.serving.lane import Lane
from gateway.serving.pipeline import Pipeline, Traffic
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.triton.cluster import Cluster
from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton

log = structlog.get_logger(__name__)

#: A body this many times over the limit is still read away to tell its sender kindly.
READ_AWAY = 16
#: Seconds in which a request's body must have arrived.
BODY_SECONDS = 60


def application(pipeline: Pipeline, settings: Settings) -> Application:
    """Return the Tornado application: every route of the gateway, one a line."""
    serving = {"pipeline": pipeline}
    predict = {"pipeline": pipeline, "settings": settings}
    return Application(
        [
            (r"/([^/]+)_single_predict", Predict, {"form": SINGLE, **predict}),
            (r"/([^/]+)_batch_predict", Predict, {"form": BATCH, **predict}),
            (r"/models", Models, serving),
            (r"/models/([^/]+)", Model, serving),
            *admin.routes(settings),
            (r"/livez", Live),
            (r"/readyz", Ready, serving),
            (r"/metrics", Metrics, serving),
        ],
        default_handler_class=UnknownRoute,
        log_function=record,
    )


class Gateway:
    """One gateway process. `say` tells people what is going on while it starts."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._triton: EmbeddedTriton | None = None
        self._cluster: Cluster | None = None
        self._server: HTTPServer | None = None
        self._threads = ThreadPoolExecutor(settings.preprocess_threads, "preprocess")
        self.pipeline = Pipeline(settings.max_batch_rows, self._notices)
        self.port = 0

    async def start(self) -> None:
        """Start everything and begin to listen; raises what keeps it from starting.

        HTTP answers before the models are loaded: `/readyz` tells how far they are.
        """
        settings = self._settings
        manifests = manifest.read(settings.repository, settings.models)
        endpoints = settings.triton or (await self._start_triton(),)
        wanted = {
            (model, release.model_version)
            for model, declared in manifests.items()
            for release in declared.releases.values()
        }
        cluster = Cluster(endpoints, sorted(wanted), mends=self._triton is not None)
        cluster.start()
        self._cluster = cluster
        self.pipeline.traffic |= {
            model: self._traffic(model, declared, cluster) for model, declared in manifests.items()
        }
        self._server = self._listen()

    async def ready(self) -> None:
        """Wait until every release that gets traffic can be served, telling of each."""
        waiting = set(self.pipeline.traffic)
        while waiting:
            problems = self.pipeline.problems()
            for model in sorted(waiting - {name.partition("/")[0] for name in problems}):
                waiting.discard(model)
                self._say(f"loaded {model}")
            await asyncio.sleep(0.05)

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
        for traffic in self.pipeline.traffic.values():
            for lane in traffic.lanes.values():
                await lane.close()
        if self._cluster:
            await self._cluster.close()
        if self._triton:
            await self._triton.stop()
        self._threads.shutdown()

    def _notices(self) -> dict[str, str]:
        if self._triton is None or self._triton.status.state == "running":
            return {}
        status = self._triton.status
        return {"triton": f"{status.state} after {status.restarts} restarts: {status.reason}"}

    async def _start_triton(self) -> str:
        settings = self._settings
        self._say("starting Triton")
        self._triton = EmbeddedTriton(
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
            on_ready=self._triton_ready,
        )
        await self._triton.start()
        return self._triton.grpc_endpoint

    async def _triton_ready(self) -> None:
        if self._triton:
            metrics.TRITON_RESTARTS.set(self._triton.status.restarts)

    def _traffic(self, model: str, declared: manifest.Manifest, cluster: Cluster) -> Traffic:
        lanes = {}
        for name, release in declared.releases.items():
            self._say(f"loading {model}, release {name}: {release.preprocessor}")
            worker = InlineWorker(*load(release.preprocessor), self._threads)
            lanes[name] = Lane(model, name, release, worker, cluster, self._settings.queue_rows)
        return Traffic(lanes, declared.traffic)

    def _listen(self) -> HTTPServer:
        settings = self._settings
        sockets = bind_sockets(settings.port, settings.host)
        server = HTTPServer(
            application(self.pipeline, settings),
            max_body_size=READ_AWAY * settings.max_body_bytes,
            body_timeout=BODY_SECONDS,
        )
        server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        return server

"""Settings: one frozen object; command line > environment > file > default.

Environment: `GATEWAY_` and the upper-case name; an empty variable counts as not set. File:
`gateway.toml` in the working folder, or the file that `GATEWAY_CONFIG` names. A bad value prevents
the start, and the message names the key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

DEFAULT_FILE = "gateway.toml"
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """What an operator can set. Every field is documented in docs/settings.md."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="GATEWAY_",
        env_ignore_empty=True,
        extra="forbid",
        toml_file=DEFAULT_FILE,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8080, description="port to listen on; 0 picks a free port")
    processes: int = Field(1, ge=1, description="gateway processes that share the port")
    repository: Path = Field(Path("model_repository"), description="Triton model repository")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="serve only these models, comma separated"
    )
    ready_requires: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="models without which /readyz answers 503, comma separated"
    )
    triton: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="external Triton gRPC endpoints, host:port or dns:name:port for all addresses"
        " of a name,…; none starts the embedded Triton",
    )
    triton_ca: FilePath | None = Field(
        None,
        description="CA certificates (PEM) that external Tritons' certificates are verified with;"
        " set, all connections use TLS",
    )
    triton_certificate: FilePath | None = Field(
        None, description="this gateway's certificate (PEM) for Tritons that ask for one (mTLS)"
    )
    triton_key: FilePath | None = Field(None, description="the private key (PEM) of it")
    models_python: Path = Field(
        Path(".venv-models/bin/python"), description="Python that runs the embedded Triton"
    )
    triton_deploy: Path = Field(
        Path("deploy/triton"),
        description="folder with Triton's Python-based backends and the canary model",
    )
    triton_threads: int = Field(
        1, ge=1, description="threads per embedded model instance, unless config.pbtxt sets them"
    )
    reload_failing_models: bool = Field(
        False,
        description="reload a model when its calls fail, or those of one instance; always on for"
        " the embedded Triton",
    )
    triton_grpc_port: Port = Field(
        0, description="gRPC port of the embedded Triton; 0 picks a free port"
    )
    triton_http_port: Port = Field(
        0, description="HTTP port of the embedded Triton; 0 picks a free port"
    )
    triton_metrics_port: Port = Field(
        0, description="metrics port of the embedded Triton; 0 picks a free port"
    )
    preprocessors: Path = Field(
        Path("preprocessors"), description="folder with the packages that `gateway wheels` builds"
    )
    wheelhouse: Path = Field(
        Path(".run/wheelhouse"), description="folder with wheels that no package index has"
    )
    environments: Path = Field(
        Path(".run/environments"), description="folder with the preprocessors' environments"
    )
    prebuilt_environments: Path | None = Field(
        None,
        description="read-only folder of prebuilt environments, searched before `environments`",
    )
    offline: bool = Field(
        False, description="install from the wheelhouse only, never from an index"
    )
    run_dir: Path = Field(
        Path(".run"), description="working folder for logs, sockets and Triton's files"
    )
    state_dir: Path | None = Field(
        None,
        description="folder that outlives the container (applied traffic); default: run_dir",
    )
    max_body_bytes: int = Field(16 << 20, ge=1024, description="largest request body in bytes")
    max_bodies_bytes: int = Field(
        256 << 20,
        ge=1024,
        description="most bytes of large request bodies at once, in all; one model may have half",
    )
    max_connections: int = Field(
        0, ge=0, description="most connections per process; 0: as many as there are descriptors for"
    )
    idle_seconds: float = Field(
        75.0, gt=0, description="close a connection without a whole request head for so long"
    )
    body_seconds: float = Field(
        60.0, gt=0, description="close a connection whose request body takes longer than this"
    )
    write_seconds: float = Field(
        30.0, gt=0, description="close a connection that takes longer than this to take its answer"
    )
    max_batch_rows: int = Field(1024, ge=1, description="most instances in one batch request")
    max_instance_bytes: int = Field(
        1 << 20, ge=1, description="longest instance in bytes of JSON, without images in it"
    )
    max_image_pixels: int = Field(
        16_000_000, ge=1, description="most pixels of one image, read from its header"
    )
    max_batch_pixels: int = Field(
        128_000_000, ge=1, description="most pixels of all images of one request"
    )
    queue_rows: int = Field(
        2048, ge=1, description="rows admitted per release at once; more are answered with 429"
    )
    max_calls: int = Field(
        0,
        ge=0,
        description="short calls to Triton in flight, over all models; 0: two more than cores with"
        " the embedded Triton, unlimited otherwise",
    )
    request_timeout_ms: int = Field(
        30_000, ge=1, description="deadline of requests that set none, and the longest they may set"
    )
    preprocess_threads: int = Field(
        2, ge=1, description="threads per preprocessor that runs inside the gateway"
    )
    workers: int = Field(
        0,
        ge=0,
        description="worker processes per isolated preprocessor; 0: one per core, at most two",
    )
    worker_start_seconds: float = Field(
        60.0, gt=0, description="give up on a worker that has not started after this many seconds"
    )
    worker_call_seconds: float = Field(
        10.0, gt=0, description="kill a worker that has been at one call for this many seconds"
    )
    worker_growth_bytes: int = Field(
        256 << 20,
        ge=0,
        description="replace a worker whose resident memory has grown by more than this since it"
        " started, once it is idle; 0: never",
    )
    watch_seconds: float = Field(
        0.5, gt=0, description="seconds between checks of releases.toml and releases.lock"
    )
    admin_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="key that /admin requires; without one, only loopback clients may use it",
    )
    drain_seconds: float = Field(
        20.0, ge=0, description="seconds that requests in flight get to finish at shutdown"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level that is logged"
    )
    log_file: Path | None = Field(None, description="file for the JSON log; default: log_stream")
    log_stream: Literal["stderr", "stdout"] = Field(
        "stderr", description="stream for the JSON log; on stdout, progress messages are logged too"
    )

    @property
    def state(self) -> Path:
        """Folder for files that should survive a restart of the host or container."""
        return self.state_dir or self.run_dir

    @field_validator("models", "ready_requires", "triton", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("triton")
    @classmethod
    def _endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in value:
            host, _, port = endpoint.rpartition(":")
            named = endpoint.startswith("dns:")
            if not (host.removeprefix("dns:") if named else host) or not port.isdigit():
                raise ValueError(f"{endpoint!r} is not host:port or dns:name:port")
            if host == "dns":
                raise ValueError(f"{endpoint!r} has no port: write dns:name:port")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if self.triton_ca and not self.triton:
            raise ValueError("triton_ca is for external Tritons: set triton, too")
        if (self.triton_certificate is None) is not (self.triton_key is None):
            raise ValueError("triton_certificate and triton_key belong together: set both")
        if self.triton_certificate and not self.triton_ca:
            raise ValueError("triton_certificate needs triton_ca, without which TLS is not used")
        return self

    @model_validator(mode="after")
    def _batch_fits_queue(self) -> Self:
        if self.max_batch_rows > self.queue_rows:
            raise ValueError(
                f"max_batch_rows ({self.max_batch_rows}) must not exceed"
                f" queue_rows ({self.queue_rows}): the largest batch would never be admitted"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: command line (init), environment, file."""
        del dotenv_settings, file_secret_settings
        file = Path(os.environ.get("GATEWAY_CONFIG", DEFAULT_FILE))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

"""Settings: one frozen object; command line > environment > file > default.

Environment: `GATEWAY_` and the upper-case name; an empty variable counts as not set. File:
`gateway.toml` in the working folder, or the one that `GATEWAY_CONFIG` names. A bad value stops the
start and names the key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
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
    port: Port = Field(8080, description="port to listen on; 0 picks a free one")
    processes: int = Field(
        1, ge=1, description="gateways that share the port; more than one for many cores"
    )
    repository: Path = Field(Path("model_repository"), description="Triton model repository")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="serve only these models of the repository, comma separated"
    )
    ready_requires: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="models without which /readyz answers 503, comma separated"
    )
    triton: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="external Triton gRPC endpoints, host:port,…; none starts the embedded one"
    )
    models_python: Path = Field(
        Path(".venv-models/bin/python"), description="interpreter that runs the embedded Triton"
    )
    triton_deploy: Path = Field(
        Path("deploy/triton"), description="folder with Triton's Python-based backends and canary"
    )
    triton_threads: int = Field(
        1, ge=1, description="threads of an embedded model instance that configures none"
    )
    reload_failing_models: bool = Field(
        False, description="reload a model when all its calls fail; always on with the embedded one"
    )
    triton_grpc_port: Port = Field(0, description="embedded Triton's gRPC port; 0 picks one")
    triton_http_port: Port = Field(0, description="embedded Triton's HTTP port; 0 picks one")
    triton_metrics_port: Port = Field(0, description="embedded Triton's metrics port; 0 picks one")
    preprocessors: Path = Field(
        Path("preprocessors"), description="folder with the packages that `gateway wheels` builds"
    )
    wheelhouse: Path = Field(
        Path(".run/wheelhouse"), description="folder with wheels that no index has"
    )
    environments: Path = Field(
        Path(".run/environments"), description="folder with the preprocessors' environments"
    )
    prebuilt_environments: Path | None = Field(
        None,
        description="read-only folder of environments built ahead; looked in before `environments`",
    )
    offline: bool = Field(False, description="install from the wheelhouse only, never an index")
    run_dir: Path = Field(Path(".run"), description="working folder: logs, Triton's files")
    state_dir: Path | None = Field(
        None, description="folder to keep over restarts: the traffic in force; none is run_dir"
    )
    max_body_bytes: int = Field(16 << 20, ge=1024, description="largest request body in bytes")
    max_batch_rows: int = Field(1024, ge=1, description="most instances in one batch request")
    queue_rows: int = Field(
        2048, ge=1, description="rows admitted to one release at once; beyond them: 429"
    )
    max_calls: int = Field(
        0,
        ge=0,
        description="short calls to Triton in flight over all models; 0: two more than cores if"
        " embedded, else as many as come",
    )
    request_timeout_ms: int = Field(
        30_000, ge=1, description="deadline of a request that sets none, and the longest it may set"
    )
    preprocess_threads: int = Field(
        2, ge=1, description="threads of each preprocessor that runs inside the gateway"
    )
    workers: int = Field(
        0,
        ge=0,
        description="worker processes of each isolated preprocessor; 0: one a core, two at most",
    )
    worker_start_seconds: float = Field(
        60.0, gt=0, description="longest that a preprocessor's worker may take to start"
    )
    worker_call_seconds: float = Field(
        10.0, gt=0, description="longest that a worker may take to reply before it is killed"
    )
    watch_seconds: float = Field(
        0.5, gt=0, description="pause between two looks at releases.toml and its lock"
    )
    admin_key: SecretStr | None = Field(
        None, min_length=1, description="key that /admin asks for; none: loopback clients only"
    )
    drain_seconds: float = Field(20.0, ge=0, description="longest wait for requests at shutdown")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )
    log_file: Path | None = Field(None, description="file for the JSON log; none: log_stream")
    log_stream: Literal["stderr", "stdout"] = Field(
        "stderr", description="where the JSON log goes; on stdout the start's progress is in it"
    )

    @property
    def state(self) -> Path:
        """Where files lie that should survive this host's or container's restart."""
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
            if not host or not port.isdigit():
                raise ValueError(f"{endpoint!r} is not host:port")
        return value

    @model_validator(mode="after")
    def _batch_fits_queue(self) -> Self:
        if self.max_batch_rows > self.queue_rows:
            raise ValueError(
                f"max_batch_rows ({self.max_batch_rows}) must not exceed"
                f" queue_rows ({self.queue_rows}): the largest batch could never be admitted"
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

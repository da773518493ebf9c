"""Reads `config.pbtxt` files, to load exactly the model versions that releases name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

#: What tells whether files have changed.
FileStamps = frozenset[tuple[Path, int, int]]


class ConfigError(ValueError):
    """A `config.pbtxt` that cannot be parsed; the message names the file."""


def parse(path: Path, text: str) -> model_config_pb2.ModelConfig:
    """Read the text of a `config.pbtxt`; `path` is for messages. Raises ConfigError."""
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


class Configs:
    """The model configurations of a repository."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def stamps(self, model: str) -> FileStamps:
        """Return path, time of change (ns) and size of each file of a model that can be read."""
        found = set()
        for path in (self._repository / model).rglob("*"):
            with suppress(OSError):
                status = path.stat()
                found.add((path, status.st_mtime_ns, status.st_size))
        return frozenset(found)

    def with_versions(self, model: str, numbers: set[int]) -> str | None:
        """Return the model's configuration as JSON, with a version policy of these versions.

        None if the model has no `config.pbtxt`: Triton then generates one and serves the latest
        version. Raises ConfigError.
        """
        path = self._repository / model / "config.pbtxt"
        try:
            config = parse(path, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: {error}") from None
        config.version_policy.specific.versions[:] = sorted(numbers)
        return str(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))

"""The traffic applied last, kept over a restart.

If what is declared turns out to be rejected, what served before goes on serving, also where the
gateway was restarted in between. One small file a model in the state folder.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from gateway.system.files import replace

log = structlog.get_logger(__name__)


class AppliedTraffic:
    """The weights, by model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, dict[str, int]] = {}

    def read(self, model: str) -> dict[str, int]:
        """Return the weights last kept; empty where there are none that can be read."""
        try:
            return msgspec.json.decode(self._path(model).read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def keep(self, model: str, weights: dict[str, int]) -> None:
        """Keep the weights now applied; log a warning where the folder cannot be written."""
        if self._kept.get(model) == weights:
            return
        self._kept[model] = weights
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(self._path(model), msgspec.json.encode(weights))
        except OSError as error:
            log.warning("applied traffic is not kept", model=model, reason=str(error))

    def _path(self, model: str) -> Path:
        return self._folder / f"{model}.json"

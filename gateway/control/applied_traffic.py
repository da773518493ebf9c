"""The traffic applied last, saved across restarts.

If a declared release is rejected, the releases that served before keep serving, even if the gateway
was restarted in between. One small file per model in the state folder.
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
        """Return the saved weights; empty if there are none that can be read."""
        try:
            return msgspec.json.decode(self._path(model).read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def keep(self, model: str, weights: dict[str, int]) -> None:
        """Save the applied weights; log a warning if the folder cannot be written."""
        if self._kept.get(model) == weights:
            return
        self._kept[model] = weights
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(self._path(model), msgspec.json.encode(weights))
        except OSError as error:
            log.warning("applied traffic not saved", model=model, reason=str(error))

    def _path(self, model: str) -> Path:
        return self._folder / f"{model}.json"

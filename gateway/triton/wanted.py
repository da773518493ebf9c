"""What every replica should serve, and when that is settled enough to start loading."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gateway.triton.model_control import Files, ModelVersion

#: Most seconds that loads wait for versions that are about to be wanted.
GATHER = 2.0


class Wanted:
    """The wanted `versions`, with the files that each should be loaded from."""

    def __init__(self) -> None:
        self.versions: dict[ModelVersion, Files] = {}
        self._announced = 0
        self._gathered = asyncio.Event()
        self._gathered.set()

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Delay loads while the block determines whether it wants a version.

        Versions wanted at the same time are loaded together: a model's versions in one load, and
        models concurrently.
        """
        self._announced += 1
        self._gathered.clear()
        try:
            yield
        finally:
            self._announced -= 1
            if not self._announced:
                self._gathered.set()

    async def gathered(self) -> None:
        """Wait for announced versions, for `GATHER` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                await self._gathered.wait()

    def add(self, version: ModelVersion, files: Files, *, anew: bool) -> bool:
        """Want a version from these files; returns whether that is new.

        Without `anew`, a version that is wanted from other files is left alone.
        """
        known = self.versions.get(version)
        if known is not None and (known == files or not anew):
            return False
        self.versions[version] = files
        return True

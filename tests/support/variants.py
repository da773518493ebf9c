"""Second releases of a model whose preprocessor, lock, weights or environment went wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.building import wheels
from gateway.building.custody import Custody
from gateway.building.locking import Locking
from gateway.building.wheels import Wheel
from gateway.preprocessing import environments
from gateway.releases import lock, manifest
from gateway.releases.lock import Lock, LockedRelease
from gateway.settings import Settings
from tests.support.repository import copied
from tests.support.stack import ROOT

MODEL = "tumor"
PACKAGE = "tumor-preprocessor"
MODULE = f"src/{MODEL}_preprocessor"
RELEASE = """[releases.{name}]
model_version = {model_version}
preprocessor = "{package}=={version}"

[traffic]
{name} = 100
"""


class Workshop:
    """A repository of its own with `tumor` in it, and what it takes to make second releases.

    Releases are prepared in a staging repository: the served one changes all at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = copied(root / "repository", [MODEL])
        self.folder = self.repository / MODEL
        self._staging = copied(root / "staging", [MODEL]) / MODEL
        self._sources = root / "preprocessors"
        for name in ("contract", MODEL):
            self._copy_sources(name)
        self.settings = Settings(
            repository=root / "staging",
            preprocessors=self._sources,
            wheelhouse=root / "wheelhouse",
            environments=root / "environments",
        )
        self.wheel()
        self._declared = (self.folder / manifest.FILE).read_text()
        found = lock.read(self.folder)
        assert found
        self.first = found.releases["1"]

    def variant(
        self,
        version: str,
        edits: Mapping[str, str],
        goldens: Mapping[str, str],
        most_goldens: int | None,
    ) -> None:
        """Make the preprocessor's sources those of 1.0.0 with these replacements."""
        self._copy_sources(MODEL)
        folder = self._sources / MODEL
        replace(folder / "pyproject.toml", {'version = "1.0.0"': f'version = "{version}"'})
        replace(folder / MODULE / "preprocessor.py", edits)
        replace(folder / MODULE / "goldens.json", goldens)
        if most_goldens:
            path = folder / MODULE / "goldens.json"
            path.write_text(json.dumps(json.loads(path.read_text())[:most_goldens]))

    def wheel(self) -> Wheel:
        """Build the wheel of the sources as they are."""
        settings = self.settings
        built = wheels.build(
            *(settings.preprocessors, settings.wheelhouse, Custody(settings.repository)),
            lambda _: None,
        )
        return next(wheel for wheel in built if wheel.name == PACKAGE)

    def locked(self, version: str, model_version: int) -> LockedRelease:
        """Lock the sources as they are with the project's own locking."""
        (self._staging / manifest.FILE).write_text(_release("2", version, model_version))
        (self._staging / lock.FILE).unlink(missing_ok=True)
        asyncio.run(Locking(self.settings, lambda _: None).lock((MODEL,)))
        found = lock.read(self._staging)
        assert found
        return found.releases["2"]

    def locked_by_hand(self) -> LockedRelease:
        """Lock the sources' wheel where the project's own locking refuses it."""
        wheel = self.wheel()
        own = f"{PACKAGE}=={wheel.version}"
        others = [line for line in self.first.requirements if lock.pin(line).name != PACKAGE]
        return msgspec.structs.replace(
            self.first,
            preprocessor=own,
            wheel=wheel.digest,
            requirements=[*others, f"{own} --hash={wheel.digest}"],
        )

    def locked_weights(self, number: int) -> LockedRelease:
        """Lock another model version, as it is now, with release 1's preprocessor."""
        model = lock.digest_model(self.folder, number)
        return msgspec.structs.replace(self.first, model_version=number, model=model)

    def add_version(self, number: int) -> None:
        """Give the model another version, the same as its first, staged and served."""
        for folder in (self._staging, self.folder):
            shutil.copytree(folder / "1", folder / str(number), copy_function=shutil.copyfile)

    def declare(
        self,
        version: str,
        model_version: int,
        locked: LockedRelease | None,
        *,
        promoted: bool = True,
    ) -> None:
        """Declare release 2 where the gateway sees it, with all the traffic or none."""
        lock.write(self.folder, Lock({"1": self.first} | ({"2": locked} if locked else {})))
        text = self._declared.replace("1 = 100\n", "")
        release = _release("2", version, model_version)
        if not promoted:
            release = release.replace("2 = 100\n", "1 = 100\n")
        self._publish(text.replace("[traffic]\n", release))

    def restore(self) -> None:
        """Leave release 1 alone, as it was."""
        self._publish(self._declared)
        lock.write(self.folder, Lock({"1": self.first}))

    def clear_versions(self) -> None:
        """Remove every model version but the first."""
        for folder in (self._staging, self.folder):
            for version in folder.glob("[2-9]"):
                shutil.rmtree(version)

    def environment(self, locked: LockedRelease) -> Path:
        """The folder of a release's environment."""
        return self.settings.environments / environments.digest(locked.requirements)

    def site_packages(self, locked: LockedRelease) -> Path:
        """The folder that a release's distributions are in."""
        (found,) = self.environment(locked).glob("lib/python*/site-packages")
        return found

    def _copy_sources(self, name: str) -> None:
        target = self._sources / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(
            ROOT / "preprocessors" / name, target, ignore=shutil.ignore_patterns("__pycache__")
        )

    def _publish(self, text: str) -> None:
        partial = self.folder / ".releases.toml.new"
        partial.write_text(text)
        partial.replace(self.folder / manifest.FILE)


def replace(path: Path, changes: Mapping[str, str]) -> None:
    """Replace texts in a file; each must be there."""
    text = path.read_text()
    for old, new in changes.items():
        assert old in text, f"{path.name} has no {old!r}"
        text = text.replace(old, new)
    path.write_text(text)


def _release(name: str, version: str, model_version: int) -> str:
    return RELEASE.format(name=name, version=version, model_version=model_version, package=PACKAGE)

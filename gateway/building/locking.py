"""Locks releases: wheels → resolved requirements → environment → identity → digests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from gateway_preprocessor import wire
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gateway.building import wheels
from gateway.building.custody import Custody
from gateway.building.wheels import Wheel
from gateway.preprocessing.environments import EnvironmentFailure, Environments, run_uv
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.pool import WorkerPool
from gateway.preprocessing.worker_processes import PoolOptions
from gateway.releases import goldens, lock, manifest
from gateway.releases.alignment import Misaligned
from gateway.releases.lock import Lock, LockedRelease, LockError
from gateway.settings import Settings

#: The oldest Python that a lock must support; newer ones use the same versions if possible.
PYTHON = "3.11"
START_SECONDS, CALL_SECONDS = 60.0, 30.0


class Locking:
    """Writes and verifies the locks of a repository. `say` prints each step for people."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._environments = Environments(
            settings.environments, settings.wheelhouse, offline=settings.offline
        )
        custody = Custody(settings.repository)
        self._wheels = wheels.build(
            *(settings.preprocessors, settings.wheelhouse, custody, say), offline=settings.offline
        )
        own = {wheel.name for wheel in self._wheels}
        self._missing = custody.missing(settings.wheelhouse, own)

    async def lock(
        self, models: tuple[str, ...], relock: Collection[str] = (), *, upgrade: bool = False
    ) -> None:
        """Lock every declared release that is not locked, and those named by `relock`.

        Raises LockError naming everything that drifted; models without drift are still written.
        """
        manifests = manifest.read(self._settings.repository, models)
        declared = {name for item in manifests.values() for name in item.releases}
        if unknown := sorted(set(relock) - declared):
            raise LockError(f"no release {unknown[0]} is declared")
        problems = []
        for model, item in manifests.items():
            folder = self._settings.repository / model
            old = lock.read(folder) or Lock({})
            new = {}
            for name, release in item.releases.items():
                if name in old.releases and name not in relock:
                    new[name] = old.releases[name]
                    found = await self._differences(folder, name, release, new[name])
                    problems += [f"{model}, {text}" for text in found]
                else:
                    pins = () if upgrade else _preferred(old, name)
                    new[name] = await self._locked(folder, release, pins)
                    self._say(f"locked {model}, release {name}: {new[name].preprocessor}")
            for name in sorted(old.releases.keys() - new.keys()):
                self._say(f"dropped {model}, release {name}: it is no longer declared")
            if new != old.releases:
                lock.write(folder, Lock(new))
        if problems:
            raise LockError(
                "\n".join(problems) + "\na locked release is immutable: declare a new one"
                " (or --relock this one while no gateway serves it)"
            )

    async def check(self, models: tuple[str, ...]) -> list[str]:
        """Return all differences from the locks; writes nothing."""
        problems = []
        for model, item in manifest.read(self._settings.repository, models).items():
            folder = self._settings.repository / model
            old = lock.read(folder) or Lock({})
            for name, release in item.releases.items():
                locked = old.releases.get(name)
                found = await self._differences(folder, name, release, locked)
                problems += [f"{model}, {text}" for text in found]
                if not found and locked:
                    self._say(f"{model}, release {name}: {locked.preprocessor} is as locked")
            for name in sorted(old.releases.keys() - item.releases.keys()):
                problems.append(f"{model}, release {name} is locked but not declared")
        return problems

    async def _differences(
        self, folder: Path, name: str, release: manifest.Release, locked: LockedRelease | None
    ) -> list[str]:
        found = lock.drift(folder, name, release, locked)
        if locked is None:
            return found
        if lacking := self._lacking(locked):  # told even where a built environment would do
            return found + [f"release {name}: {text}" for text in lacking]
        try:
            changed = lock.drift_of_worker(locked, await self._identity(locked))
        except (EnvironmentFailure, PreprocessorUnavailable) as error:
            changed = [f"its environment cannot be built or started: {error}"]
        return found + [f"release {name}: {text}" for text in changed]

    def _lacking(self, locked: LockedRelease) -> list[str]:
        """Name the locked wheels that this machine could only get from elsewhere."""
        digests = {digest for line in locked.requirements for digest in lock.pin(line).digests}
        return [
            f"the locked wheel of {wheel.name}=={wheel.version} is not in"
            f" {self._settings.wheelhouse}: `gateway wheels --locked` gets it"
            for wheel in self._missing
            if wheel.digest in digests
        ]

    async def _locked(
        self, folder: Path, release: manifest.Release, pins: Sequence[str]
    ) -> LockedRelease:
        model = lock.digest_model(folder, release.model_version)
        if not any(path.startswith(f"{release.model_version}/") for path in model):
            raise LockError(f"{folder}: model version {release.model_version} has no files")
        requirements = resolve(release.preprocessor, pins, self._wheels, self._settings)
        distribution = canonicalize_name(Requirement(release.preprocessor).name)
        own = next(pin for pin in map(lock.pin, requirements) if pin.name == distribution)
        if len(own.digests) != 1:
            raise LockError(
                f"{own.name}=={own.version} has several wheels; a release needs exactly one"
            )
        draft = LockedRelease(
            model_version=release.model_version,
            preprocessor=f"{own.name}=={own.version}",
            wheel=own.digests[0],
            contract="",
            goldens="",
            requirements=requirements,
            model=model,
        )
        identity = await self._identity(draft)
        try:
            goldens.of_version(folder, release.model_version, identity.goldens)
        except Misaligned as error:
            raise LockError(str(error)) from None
        return LockedRelease(
            model_version=draft.model_version,
            preprocessor=draft.preprocessor,
            wheel=draft.wheel,
            contract=lock.digest_json(identity.description),
            goldens=lock.digest_json(identity.goldens),
            requirements=requirements,
            model=model,
        )

    async def _identity(self, locked: LockedRelease) -> wire.Identity:
        python = await self._environments.python(locked.requirements)
        with tempfile.TemporaryDirectory(prefix="lock-") as folder:
            options = PoolOptions(
                python=python,
                distribution=locked.preprocessor.partition("==")[0],
                folder=Path(folder),
                size=1,
                start_seconds=START_SECONDS,
                call_seconds=CALL_SECONDS,
            )
            pool = WorkerPool(options)
            try:
                await pool.start()
                return pool.identity
            finally:
                await pool.close()


def resolve(
    requirement: str, pins: Sequence[str], own: Sequence[Wheel], settings: Settings
) -> list[str]:
    """Resolve a preprocessor's requirement to pinned ones with hashes, one per line.

    `pins` are kept if they fit. The repository's own packages never come from an index. Raises
    LockError, or EnvironmentFailure with uv's output.
    """
    try:
        Requirement(requirement)
    except InvalidRequirement as error:
        raise LockError(f"preprocessor {requirement!r}: {error}") from None
    names = [wheel.name for wheel in own]
    only = [f"{wheel.name}=={wheel.version}" for wheel in own if names.count(wheel.name) == 1]
    with tempfile.TemporaryDirectory() as folder:
        wanted, constraints, output = (Path(folder) / name for name in ("in", "only", "out"))
        wanted.write_text(f"{requirement}\n")
        constraints.write_text("\n".join(only) + "\n")
        output.write_text("\n".join(line.partition(" --hash=")[0] for line in pins) + "\n")
        run_uv(
            *("pip", "compile", wanted, "--constraints", constraints, "--output-file", output),
            *("--generate-hashes", "--universal", "--fork-strategy", "fewest"),
            *("--python-version", PYTHON, "--only-binary", ":all:", "--no-config"),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            *("--find-links", settings.wheelhouse.absolute()),
            *(("--offline",) if settings.offline else ()),
        )
        lines = output.read_text().replace(" \\\n    ", " ").splitlines()
    return [_own(line, own) for line in lines if line]


def _own(line: str, own: Sequence[Wheel]) -> str:
    """Pin a package of the repository to its own wheel; return any other line unchanged."""
    pin = lock.pin(line)
    mine = [wheel for wheel in own if wheel.name == pin.name]
    for wheel in mine:
        if wheel.version == pin.version:
            return f"{line.partition(' --hash=')[0]} --hash={wheel.digest}"
    if mine:
        raise LockError(
            f"{pin.name}=={pin.version} is not the repository's version, which is {mine}"
        )
    return line


def _preferred(old: Lock, name: str) -> Sequence[str]:
    """Return the pins to keep: the release's own, or those of the release before it."""
    before = [old.releases[name]] if name in old.releases else list(old.releases.values())
    return before[-1].requirements if before else ()

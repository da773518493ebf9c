"""Locks releases: wheels → resolved requirements → environment → identity → digests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from gateway_preprocessor import wire
from packaging.utils import canonicalize_name

from gateway.building import relocking, wheels
from gateway.building.custody import Custody, lacking
from gateway.building.relocking import ALL, Verify
from gateway.building.resolving import Own, requirement, resolve
from gateway.preprocessing.environments import EnvironmentFailure, Environments
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.pool import WorkerPool
from gateway.preprocessing.worker_processes import PoolOptions
from gateway.releases import goldens, lock, manifest
from gateway.releases.alignment import Misaligned
from gateway.releases.lock import Lock, LockedRelease, LockError
from gateway.releases.manifest import Manifest
from gateway.settings import Settings
from gateway.system.files import Busy, locked

START_SECONDS, CALL_SECONDS = 60.0, 30.0


class Locking:
    """Writes and verifies the locks of a repository. `say` prints each step for people.

    `verify` is asked before a release that is loaded is locked anew; without it, none is.
    """

    def __init__(
        self, settings: Settings, say: Callable[[str], None], verify: Verify | None = None
    ) -> None:
        self._settings = settings
        self._say = say
        self._verify = verify
        self._environments = Environments(
            settings.environments, settings.wheelhouse, offline=settings.offline
        )
        custody = Custody(settings.repository)
        built = wheels.build(
            *(settings.preprocessors, settings.wheelhouse, custody, say), offline=settings.offline
        )
        names = {wheel.name for wheel in built}
        self._own = Own(built, custody.wheels(names))
        self._missing = custody.missing(settings.wheelhouse, names)

    async def lock(
        self, models: tuple[str, ...], relock: Collection[str] = (), *, upgrade: bool = False
    ) -> None:
        """Lock every declared release that is not locked, and those named by `relock`.

        Raises LockError naming all that drifted or could not be locked. What a model's releases
        share is locked for all of them or not at all: a refused relock changes nothing.
        """
        manifests = manifest.read(self._settings.repository, models)
        declared = {name for item in manifests.values() for name in item.releases}
        if unknown := sorted(set(relock) - declared - {ALL}):
            raise LockError(f"no release {unknown[0]} is declared")
        drifted, failed = [], []
        for model, item in manifests.items():
            chosen = item.releases.keys() & (declared if ALL in relock else set(relock))
            try:
                drifted += await self._lock_model(model, item, chosen, upgrade=upgrade)
            except LockError as error:
                failed.append(str(error))
        if drifted:
            drifted.append(
                "a locked release is immutable: declare a new one"
                " (or --relock this one: it is verified first)"
            )
        if failed or drifted:
            raise LockError("\n".join(failed + drifted))

    async def _lock_model(
        self, model: str, declared: Manifest, relock: Collection[str], *, upgrade: bool
    ) -> list[str]:
        """Lock one model's releases; return how those that stay as they are drifted.

        Raises LockError.
        """
        folder = self._settings.repository / model
        seen, old = manifest.stamp(folder / lock.FILE), lock.read(folder) or Lock({})
        new, drifted, failed = {}, [], []
        for name, release in declared.releases.items():
            if name in old.releases and name not in relock:
                new[name] = old.releases[name]
                found = await self._differences(folder, name, release, new[name])
                drifted += [f"{model}, {text}" for text in found]
                continue
            pins = () if upgrade else _preferred(old, name, release.preprocessor)
            try:
                new[name] = await self._locked(folder, release, pins)
            except (LockError, EnvironmentFailure, PreprocessorUnavailable) as error:
                failed.append(f"{model}, release {name}: {error}")
        again = {name for name in new if name in old.releases and new[name] != old.releases[name]}
        if not failed and again:
            failed = await relocking.refusals(model, declared, new, again, self._verify, self._say)
        if failed:
            raise LockError("\n".join(failed))
        if new != old.releases:
            _write(folder, Lock(new), seen)
        for name, one in new.items():
            if name in relock or name not in old.releases:
                self._say(f"locked {model}, release {name}: {one.preprocessor}")
        for name in sorted(old.releases.keys() - new.keys()):
            self._say(f"dropped {model}, release {name}: it is no longer declared")
        return drifted

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
        # Told even where a built environment would do.
        if told := lacking(locked.requirements, self._missing, self._settings.wheelhouse):
            return [*found, f"release {name}: {told}"]
        try:
            changed = lock.drift_of_worker(locked, await self._identity(locked))
        except (EnvironmentFailure, PreprocessorUnavailable) as error:
            changed = [f"its environment cannot be built or started: {error}"]
        return found + [f"release {name}: {text}" for text in changed]

    async def _locked(
        self, folder: Path, release: manifest.Release, pins: Sequence[str]
    ) -> LockedRelease:
        model = lock.digest_model(folder, release.model_version)
        if not any(path.startswith(f"{release.model_version}/") for path in model):
            raise LockError(f"{folder}: model version {release.model_version} has no files")
        requirements = resolve(release.preprocessor, pins, self._own, self._settings)
        distribution = canonicalize_name(requirement(release.preprocessor).name)
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


def _preferred(old: Lock, name: str, declared: str) -> Sequence[str]:
    """Return the pins to keep: the release's own.

    For a new release they are those of one with the very same preprocessor, or of the last one.
    """
    if name in old.releases:
        return old.releases[name].requirements
    before = list(old.releases.values())
    same = [one for one in before if one.preprocessor == declared.replace(" ", "")]
    return (same or before)[-1].requirements if before else ()


def _write(folder: Path, new: Lock, seen: manifest.Stamp) -> None:
    """Replace a lock that is still as it was `seen`. Raises LockError."""
    path = folder / lock.FILE
    try:
        with locked(folder / manifest.FILE):
            if manifest.stamp(path) != seen:
                raise LockError(f"{path} changed meanwhile: run `gateway lock` again")
            lock.write(folder, new)
    except Busy:
        raise LockError(f"{folder / manifest.FILE} is being edited: try again") from None

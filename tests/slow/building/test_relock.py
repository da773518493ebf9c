"""Relocking: what releases share is locked for all or for none, each with its own wheels."""

from __future__ import annotations

import subprocess
from collections.abc import Collection

import pytest

from gateway.releases import lock
from gateway.releases.lock import Lock, LockError
from tests.slow.building.project import MODEL, RELEASES, Project, edit, release_of, write
from tests.support.stack import GATEWAY, ROOT

CONFIG = f"{MODEL}/config.pbtxt"
SECOND = RELEASES.replace("releases.1", "releases.2").partition("[traffic]")[0]


async def moved_on(project: Project) -> None:
    """Move the preprocessor's sources on to 1.1.0, and lock them as release 2."""
    edit(project.root / "preprocessors/echo/pyproject.toml", '"1.0.0"', '"1.1.0"')
    releases = RELEASES + SECOND.replace("1.0.0", "1.1.0")
    write(project.root, {f"{MODEL}/releases.toml": releases})
    assert (await project.locked())[-1] == "locked echo, release 2: echo-preprocessor==1.1.0"


async def test_after_a_change_of_the_config_all_are_locked_together(project: Project) -> None:
    await moved_on(project)
    before, bytes_before = [release_of(project, name) for name in "12"], project.lock.read_bytes()
    write(project.root, {CONFIG: "name: 'echo' # changed"})
    with pytest.raises(LockError) as error:
        await project.locked("1")
    assert str(error.value).startswith(
        "echo: config.pbtxt changed, and release 2 shares it:"
        " lock them together by `gateway lock echo --relock all`"
    )
    assert project.lock.read_bytes() == bytes_before
    assert await project.locked("all") == [
        "verifying echo, release 1, 2",
        "locked echo, release 1: echo-preprocessor==1.0.0",
        "locked echo, release 2: echo-preprocessor==1.1.0",
    ]
    digest = lock.digest_file(project.root / CONFIG)
    for old, name in zip(before, "12", strict=True):
        new = release_of(project, name)
        assert new.model["config.pbtxt"] == digest != old.model["config.pbtxt"]
        assert (new.wheel, new.requirements) == (old.wheel, old.requirements)
    assert await project.check() == []


async def test_a_release_that_fails_verification_changes_nothing(project: Project) -> None:
    asked: list[tuple[str, list[str], Lock]] = []

    async def refuse(model: str, releases: Collection[str], new: Lock) -> list[str]:
        asked.append((model, list(releases), new))
        return ["release 1: rejected: a golden case differs"]

    before = project.lock.read_bytes()
    write(project.root, {CONFIG: "name: 'echo' # changed"})
    with pytest.raises(LockError) as error:
        await project.locked("1", verify=refuse)
    assert str(error.value) == (
        "echo, release 1: rejected: a golden case differs; all locks of echo stay as they were"
    )
    ((model, releases, new),) = asked
    assert (model, releases) == ("echo", ["1"])
    assert new.releases["1"].model["config.pbtxt"] == lock.digest_file(project.root / CONFIG)
    assert project.lock.read_bytes() == before


async def test_a_release_that_is_not_loaded_needs_no_verification(project: Project) -> None:
    await moved_on(project)
    edit(project.root / MODEL / "releases.toml", "==1.1.0", '==1.1.0"\nload = false\n#"')
    write(project.root, {f"{MODEL}/1/more": "of both versions"})

    async def fail(model: str, releases: Collection[str], new: Lock) -> list[str]:
        raise AssertionError(releases)

    with pytest.raises(LockError, match=r"^echo, release 1: model file 1/more is not in the lock"):
        await project.locked("2", verify=fail)
    assert "1/more" in release_of(project, "2").model


async def test_a_lock_that_changed_meanwhile_is_not_overwritten(project: Project) -> None:
    async def interfere(model: str, releases: Collection[str], new: Lock) -> list[str]:
        project.lock.write_text(project.lock.read_text() + "# by somebody else\n")
        return []

    write(project.root, {CONFIG: "name: 'echo' # changed"})
    with pytest.raises(LockError, match=r"releases\.lock changed meanwhile: run `gateway lock`"):
        await project.locked("1", verify=interfere)
    assert project.lock.read_text().endswith("# by somebody else\n")


async def test_a_version_that_nothing_has_is_told_with_those_that_there_are(
    project: Project,
) -> None:
    await moved_on(project)
    text = (project.root / MODEL / "releases.toml").read_text()
    third = SECOND.replace("releases.2", "releases.3").replace("1.0.0", "9.9.9")
    write(project.root, {f"{MODEL}/releases.toml": text + third})
    before = project.lock.read_bytes()
    with pytest.raises(LockError) as error:
        await project.locked()
    assert str(error.value) == (
        "echo, release 3: no wheel fits echo-preprocessor==9.9.9: the sources have 1.1.0;"
        " locked is echo-preprocessor==1.0.0 (echo, release 1);"
        " locked is echo-preprocessor==1.1.0 (echo, release 2)"
    )
    assert project.lock.read_bytes() == before


async def test_an_earlier_locked_version_serves_a_new_release(project: Project) -> None:
    await moved_on(project)
    text = (project.root / MODEL / "releases.toml").read_text()
    third = SECOND.replace("releases.2", "releases.3").replace("version = 1", "version = 2")
    write(project.root, {f"{MODEL}/releases.toml": text + third, f"{MODEL}/2/model.onnx": "2"})
    assert await project.locked() == ["locked echo, release 3: echo-preprocessor==1.0.0"]
    assert release_of(project, "3").requirements == release_of(project, "1").requirements


def test_two_at_once_take_turns(project: Project) -> None:
    """Both lock the same new release from the same sources: the lock is whole, and the same."""
    edit(project.root / "preprocessors/echo/pyproject.toml", '"1.0.0"', '"1.1.0"')
    releases = RELEASES + SECOND.replace("1.0.0", "1.1.0")
    write(project.root, {f"{MODEL}/releases.toml": releases})
    settings = project.settings
    command = [GATEWAY, "lock", "--repository", str(settings.repository)]
    command += ["--preprocessors", str(settings.preprocessors)]
    command += ["--wheelhouse", str(settings.wheelhouse)]
    command += ["--environments", str(settings.environments)]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    waited = [text for text in told if text.startswith("waiting for another `gateway wheels` or")]
    assert len(waited) == 1
    assert "locked" not in waited[0]
    assert release_of(project, "2").preprocessor == "echo-preprocessor==1.1.0"

"""Cores by affinity and by CPU quota, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.system import limits


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))


def group(folder: Path, **files: str) -> None:
    """Write a cgroup's files; `cpu__max` becomes `cpu.max`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def cores(tmp_path: Path, own: str) -> float:
    (tmp_path / "own").write_text(own)
    return limits.cores(tmp_path / "cgroup", tmp_path / "own")


@pytest.mark.parametrize(("text", "expected"), [("150000 100000", 1.5), ("max 100000", 8.0)])
def test_a_quota_of_cgroup_v2(tmp_path: Path, text: str, expected: float) -> None:
    group(tmp_path / "cgroup", cpu__max=text)
    assert cores(tmp_path, "0::/\n") == expected


def test_the_least_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group(root / "system.slice", cpu__max="200000 100000")
    group(root / "system.slice/gateway.service", cpu__max="400000 100000")
    assert cores(tmp_path, "0::/system.slice/gateway.service\n") == 2.0


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1.0), ("-1", 8.0)])
def test_a_quota_of_cgroup_v1(tmp_path: Path, quota: str, expected: float) -> None:
    files = {"cpu__cfs_quota_us": quota, "cpu__cfs_period_us": "100000"}
    group(tmp_path / "cgroup/cpu,cpuacct", **files)
    # As in a container: the path is the host's, only the group itself is mounted.
    assert cores(tmp_path, "4:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n0::/\n") == expected


@pytest.mark.parametrize("own", ["", "0::/\n", "1:cpu:/\n"])
def test_without_any_quota_affinity_counts(tmp_path: Path, own: str) -> None:
    assert cores(tmp_path, own) == 8.0
    assert limits.cores(tmp_path / "cgroup", tmp_path / "missing") == 8.0


def test_the_embedded_tritons_cores_bound_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cores", lambda: 8.0)
    external = ("127.0.0.1:8001",)
    assert limits.most_calls(Settings()) == 10
    assert limits.most_calls(Settings(processes=4)) == 3
    assert limits.most_calls(Settings(processes=4, max_calls=7)) == 7
    assert limits.most_calls(Settings(triton=external)) == 0
    assert limits.most_calls(Settings(triton=external, max_calls=7)) == 7


@pytest.mark.parametrize(("found", "expected"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (16.0, 2)])
def test_workers_follow_the_cores(
    monkeypatch: pytest.MonkeyPatch, found: float, expected: int
) -> None:
    monkeypatch.setattr(limits, "cores", lambda: found)
    assert limits.workers(Settings()) == expected
    assert limits.workers(Settings(workers=3)) == 3

"""`releases.toml`: what is wrong with one is named by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.releases.manifest import Batching, ManifestError, read

GOOD = """
[releases.1]
model_version = 1
preprocessor = "some-preprocessor==1.0.0"

[releases.next]
model_version = 2
preprocessor = "some-preprocessor==2.0.0"
batching = { max_rows = 16, max_calls = 4 }

[traffic]
1 = 90
next = 10
"""


def write(folder: Path, text: str) -> Path:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/releases.toml").write_text(text)
    return folder


def test_read(tmp_path: Path) -> None:
    manifest = read(write(tmp_path, GOOD))["model"]
    assert manifest.traffic == {"1": 90, "next": 10}
    assert manifest.releases["next"].batching == Batching(max_rows=16, max_calls=4)
    assert manifest.releases["1"].batching == Batching()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("model_version = 1", "model_version = 0", "releases"),
        ("model_version = 1", "", "model_version"),
        ("model_version = 1", "model_version = 1\nmodel_vresion = 1", "model_vresion"),
        ("some-preprocessor==1.0.0", "", "preprocessor"),
        ("next = 10", "later = 10", "traffic.later"),
        ("1 = 90\nnext = 10", "1 = 0", "traffic"),
        ("1 = 90", "1 = -1", "traffic"),
        ("[traffic]", "[traffic", "line"),
        ("max_rows = 16", "max_rows = 0", "max_rows"),
        ("[releases.next]", '[releases."a b"]', "releases"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError, match=told) as caught:
        read(write(tmp_path, GOOD.replace(old, new)))
    assert "model/releases.toml" in str(caught.value)


def test_missing_repository_and_model(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(ManifestError, match="other"):
        read(write(tmp_path, GOOD), ("model", "other"))

"""`releases.toml`: what is wrong with one is named by file, line and key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gateway.releases.lines import dotted, line_of
from gateway.releases.manifest import (
    Batching,
    ManifestError,
    Shadow,
    read,
    read_one,
    signature,
)

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
PATH = "model/releases.toml"


def write(folder: Path, text: str) -> Path:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/releases.toml").write_text(text)
    return folder


def test_read(tmp_path: Path) -> None:
    manifest = read(write(tmp_path, GOOD))["model"]
    assert manifest.traffic == {"1": 90, "next": 10}
    assert manifest.releases["next"].batching == Batching(max_rows=16, max_calls=4)
    assert manifest.releases["1"].batching == Batching()


def test_isolation_and_shadow(tmp_path: Path) -> None:
    text = GOOD.replace("batching", 'isolation = "inline"\nbatching')
    manifest = read_one(write(tmp_path, text + '[shadow]\nrelease = "next"\n') / PATH)
    assert [release.isolation for release in manifest.releases.values()] == [
        "environment",
        "inline",
    ]
    assert manifest.shadow == Shadow("next", share=1.0, compare="release")
    more = '[shadow]\nrelease = "next"\nshare = 1\ncompare = "preprocessor"\n'
    shadow = read_one(write(tmp_path, text + more) / PATH).shadow
    assert shadow == Shadow("next", share=1.0, compare="preprocessor")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "model_version = 1",
            "model_version = 0",
            "3: releases.1.model_version: it should",
        ),
        ("model_version = 1\n", "", "2: releases.1: the key model_version is missing"),
        ("model_version = 1", "model_vresion = 1", "3: releases.1.model_vresion: there"),
        (
            '"some-preprocessor==1.0.0"',
            '""',
            "4: releases.1.preprocessor: String should",
        ),
        (
            '"some-preprocessor==2.0.0"',
            "[\n1,\n]",
            "8: releases.next.preprocessor: it should",
        ),
        (
            "batching",
            'isolation = "none"\nbatching',
            "9: releases.next.isolation: it should",
        ),
        ("max_rows = 16", "max_rows = 0", "9: releases.next.batching.max_rows: it should be"),
        ("[releases.next]", '[releases."a b"]', '6: releases."a b": a release\'s name has'),
        ("next = 10", "later = 10", "13: traffic.later: no such release is declared"),
        ("next = 10", '"1.2" = 10', '13: traffic."1.2": no such release is declared'),
        ("1 = 90\nnext = 10", "1 = 0", "11: traffic: no release has a positive weight"),
        ("1 = 90", "1 = -1", "12: traffic.1: it should be greater than or equal to 0, not -1"),
        ("1 = 90", "1 = 1000001", "12: traffic.1: it should be less than or equal to 1000000"),
        ("1 = 90", "1 = 9.5", "12: traffic.1: it should be a valid integer, not 9.5"),
        ("[traffic]", "[traffic", "11: Expected ']'"),
        ("[traffic]\n1 = 90\nnext = 10\n", "", "1: the key traffic is missing"),
        ("[traffic]", "more = 1\n[traffic]", "11: releases.next.more: there is no such key"),
        ("\n[releases.1]", "more = 1\n[releases.1]", "1: more: there is no such key"),
        ("[traffic]", "[shadow]\nshare = 1.0\n[traffic]", "11: shadow: the key release is"),
        ("[traffic]", '[shadow]\nrelease = "3"\n[traffic]', "12: shadow.release: no release '3'"),
        (
            "[traffic]",
            'shadow = { release = "next", share = 0.0 }\n[traffic]',
            "11: releases.next.shadow: there is no such key",
        ),
        (
            "[traffic]",
            '[shadow]\nrelease = "1"\nshare = 0\n[traffic]',
            "13: shadow.share: it",
        ),
        ("[traffic]", '[shadow]\nrelease = "1"\nshare = nan\n[traffic]', "13: shadow.share: "),
        ("[traffic]", '[shadow]\nrelease = "1"\ncompare = ""\n[traffic]', "13: shadow.compare"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError, match=re.escape(f"model/releases.toml:{told}")):
        read(write(tmp_path, GOOD.replace(old, new, 1)))


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("model_version = 1", "model_version = true").replace("max_rows", "rows")
    with pytest.raises(ManifestError) as told:
        read(write(tmp_path, text.replace("1 = 90", "1 = -1")))
    path = tmp_path / PATH
    assert str(told.value).splitlines() == [
        f"{path}:3: releases.1.model_version: it should be a valid integer, not True",
        f"{path}:9: releases.next.batching.rows: there is no such key",
        f"{path}:12: traffic.1: it should be greater than or equal to 0, not -1",
    ]
    contradicting = GOOD.replace("1 = 90\nnext", '"2" = 1\n"3"') + "[shadow]\nrelease = 'four'\n"
    with pytest.raises(ManifestError) as told:
        read(write(tmp_path, contradicting))
    assert [line.split(": ", 1)[1] for line in str(told.value).splitlines()] == [
        "traffic.2: no such release is declared",
        "traffic.3: no such release is declared",
        "shadow.release: no release 'four' is declared",
    ]


def test_what_is_no_text_and_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"toml:1: releases: it should be a table"):
        read(write(tmp_path, "releases = 1\ntraffic = 2"))
    with pytest.raises(ManifestError, match="releases: it declares none"):
        read(write(tmp_path, "releases = {}\n[traffic]"))
    path = write(tmp_path, "") / PATH
    path.write_bytes(b"# \xff")
    with pytest.raises(ManifestError, match=re.escape("model/releases.toml: 'utf-8'")):
        read_one(path)
    path.unlink()
    with pytest.raises(ManifestError, match="No such file"):
        read_one(path)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("a", 2),
        ("a.b", 2),
        ("a.b.c", 2),
        ("text", 3),
        ("decoy", 1),
        ("later", 6),
        ("list", 8),
        ("table.x y", 12),
        ("table.x y.1", 13),
        ("table.x y.2.z", 14),
        ("table.x y.none", 12),
        ("end", 15),
        ("", 1),
    ],
)
def test_line_of(keys: str, line: int) -> None:
    text = (
        "# a = 1 \u2028 b = 2\n"  # no new line for TOML
        "a.b = { c = 1 }\n"
        'text = """\ndecoy = 1\n"""\n'
        "later = 1\n\n"
        "list = [\n  1,\n]\n\n"
        "[table.'x y']\n1 = 2\n\"2\" . z = 3\n[end]"
    )
    assert line_of(text, tuple(part for part in keys.split(".") if part)) == line


def test_a_dotted_path_reads_back() -> None:
    keys = ("releases", "1.2", "x")
    assert dotted(keys) == 'releases."1.2".x'
    assert tomllib.loads(f"{dotted(keys)} = 1") == {"releases": {"1.2": {"x": 1}}}


def test_the_signature_changes_with_manifest_and_lock(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    seen = [signature(tmp_path)]
    (tmp_path / "model/releases.lock").write_text("1")
    seen.append(signature(tmp_path))
    (tmp_path / "new").write_text(GOOD)
    (tmp_path / "new").replace(tmp_path / PATH)
    seen.append(signature(tmp_path))
    assert list(seen[0]) == ["model"]
    assert len({str(one) for one in seen}) == 3
    assert signature(tmp_path) == seen[-1]
    assert signature(tmp_path, ("other",)) == {}
    (tmp_path / PATH).unlink()
    assert signature(tmp_path) == {}
    with pytest.raises(ManifestError, match="does not exist"):
        signature(tmp_path / "none")


def test_missing_repository_and_model(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(ManifestError, match="other"):
        read(write(tmp_path, GOOD), ("model", "other"))

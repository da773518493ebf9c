"""Lines of keys in TOML, however it is written."""

from __future__ import annotations

import tomllib

import pytest

from gateway.releases.lines import dotted, line_of, syntax

TEXT = """\
# a comment
[releases.1]
model_version = 1
notes = \"\"\"
traffic = 5
\"\"\"

[releases."2.0"]
batching = { max_rows = 16 }
goldens.count = 3

[traffic]
1 = 90
"2.0" = 10
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ((), 1),
        (("releases", "1"), 2),
        (("releases", "1", "notes"), 4),
        (("releases", "1", "absent"), 2),  # the table that lacks it
        (("releases", "2.0", "batching", "max_rows"), 9),
        (("releases", "2.0", "goldens", "count"), 10),
        (("traffic",), 12),  # not the text in line 5
        (("traffic", "2.0"), 14),
        (("absent",), 1),
    ],
)
def test_the_line_of_a_key(keys: tuple[str, ...], line: int) -> None:
    assert line_of(TEXT, keys) == line


def test_keys_are_written_as_toml_does() -> None:
    assert dotted(("traffic", "2.0")) == 'traffic."2.0"'


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb = = 2\n", 2), ("a = 1\n[b", 2), ("a = [", 1)]
)
def test_a_syntax_error_has_a_line_and_no_column(text: str, line: int) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    found, told = syntax(text, caught.value)
    assert found == line
    assert "column" not in told
    assert "end of document" not in told

"""`goldens.json` of a model version: that version's results of the golden cases.

The cases, with their inputs and tensors, travel in the preprocessor's wheel, with the results of
the model version that it was written for. Another version behind the same wheel records its own
results here. The file lies beside the model file and is locked with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from gateway_preprocessor.goldens import FILE, Golden

from gateway.releases.alignment import Misaligned, require


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of the case `name`; the default tolerance is the case's."""

    name: str
    output: Any
    output_tolerance: Annotated[float, msgspec.Meta(ge=0)] | None = None


def of_version(folder: Path, version: int, goldens: Sequence[Golden]) -> list[Golden]:
    """Return a preprocessor's cases with the results of a version of the model in `folder`.

    Without such a file they are the cases' own. Raises Misaligned, naming file and key, if the file
    is malformed or does not have exactly these cases.
    """
    where = f"{folder.name}/{version}/{FILE}: "
    try:
        content = (folder / str(version) / FILE).read_bytes()
        results = msgspec.json.decode(content, type=list[Result])
    except FileNotFoundError:
        return list(goldens)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misaligned(f"{where}{error}") from None
    require(_differences(results, goldens), where)
    by_name = {result.name: result for result in results}
    return [_expected(golden, by_name[golden.name]) for golden in goldens]


def _differences(results: Sequence[Result], goldens: Sequence[Golden]) -> Iterator[str]:
    named = Counter(result.name for result in results)
    known = {golden.name for golden in goldens}
    for name, times in named.items():
        if name not in known:
            yield f"the preprocessor has no golden case {name!r}"
        elif times > 1:
            yield f"golden case {name!r} appears {times} times"
    for golden in goldens:
        if golden.name not in named:
            yield f"golden case {golden.name!r} is missing"


def _expected(golden: Golden, result: Result) -> Golden:
    tolerance = result.output_tolerance
    return msgspec.structs.replace(
        golden,
        output=result.output,
        output_tolerance=golden.output_tolerance if tolerance is None else tolerance,
    )

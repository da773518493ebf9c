"""Turns msgspec's first decoding error into every problem of the instance, kindly worded.

Runs only for input that was already refused, so it may decode a second time.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from gateway_preprocessor.errors import Problem, member

_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")
#: More problems than a reader would mend at once; the rest shows at the next try.
MOST_PROBLEMS = 64


def explain(error: Exception, content: bytes, expected: Any, root: str) -> list[Problem]:
    """List what is wrong with `content` (JSON text), which failed to decode as `expected`.

    `root` is the path of the value itself: `$` for an instance, `parameters` for parameters.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        return [Problem(root, "is nested too deeply")]
    except ValueError:
        return [Problem(root, f"cannot be decoded: {_lower(str(error))}")]
    found = {problem.path: problem for problem in _fields(value, expected, root)}
    found |= {problem.path: problem for problem in unrepresentable(value, root)}
    return list(found.values())[:MOST_PROBLEMS] or [_problem(str(error), root)]


def unrepresentable(value: Any, path: str) -> list[Problem]:
    """Find what Python's lenient JSON reader lets through: non-finite numbers, lone surrogates."""
    found, waiting = [], [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            found.append(Problem(path, "is not a finite number"))
        elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            found.append(Problem(path, "holds a lone surrogate, which is not Unicode text"))
        elif isinstance(value, dict):
            waiting += [(member(path, name), item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return found


def _fields(value: Any, expected: Any, root: str) -> list[Problem]:
    """Check each member of an object on its own; empty where `expected` is no Struct."""
    info = msgspec.inspect.type_info(expected)
    if not isinstance(info, msgspec.inspect.StructType) or not isinstance(value, dict):
        return []
    fields = {field.encode_name: field for field in msgspec.structs.fields(info.cls)}
    problems = []
    for name, field in fields.items():
        path = member(root, name)
        if name in value:
            try:
                msgspec.convert(value[name], field.type)
            except msgspec.ValidationError as error:
                problems.append(_problem(str(error), path))
        elif field.required:
            problems.append(Problem(path, "is missing"))
    problems += [
        Problem(member(root, name), "is not a known field") for name in value if name not in fields
    ]
    return problems


def _problem(message: str, root: str) -> Problem:
    found = _AT.search(message)
    if not found:
        return Problem(root, _lower(message))
    return Problem(root + found["path"], _lower(message[: found.start()]))


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]

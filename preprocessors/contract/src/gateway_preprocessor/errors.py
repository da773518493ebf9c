"""Errors that a preprocessor raises; they know nothing of HTTP.

Exception
├── InvalidInput       the caller's input is wrong: becomes a 422 that names index and path
└── ContractViolation  the preprocessor broke its own declaration: a bug, becomes a 500
"""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with one instance.

    `path` starts at the instance (`$`, `$.image`, `$['mean radius']`) or, for a request
    parameter, with `parameters` (`parameters.top_k`). `reason` is a sentence for the client.
    """

    path: str
    reason: str


class InvalidInput(ValueError):
    """The instance cannot be preprocessed, for a reason that its sender can mend."""

    def __init__(self, path: str, reason: str, *more: Problem) -> None:
        self.problems = (Problem(path, reason), *more)
        super().__init__("; ".join(f"{p.path}: {p.reason}" for p in self.problems))

    @classmethod
    def of(cls, problems: list[Problem]) -> InvalidInput:
        """Build from one or more problems; raises IndexError when there is none."""
        first, *more = problems
        return cls(*first, *more)


class ContractViolation(TypeError):
    """A preprocessor declared or returned something that the contract does not allow."""


def member(path: str, name: str) -> str:
    """Extend `path` by an object member: `$` and `mean radius` give `$['mean radius']`."""
    return f"{path}.{name}" if name.isidentifier() else f"{path}['{name}']"

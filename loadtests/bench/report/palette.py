"""The arms in one order, with one colour and one marker each, wherever they appear.

Colours are those of Okabe and Ito (arms) and of Tol's muted scheme (groups of processes), which
people with any kind of colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from loadtests.bench.results import Results

GATEWAY = "gateway"


class Look(NamedTuple):
    """What an architecture is called in the published comparison's table, and how it is drawn."""

    title: str
    colour: str
    marker: str


LOOKS = {
    "flask_transformers": Look("Gunicorn + Flask + Transformers", "#D55E00", "s"),
    "tornado_torch": Look("Tornado + PyTorch", "#E69F00", "^"),
    "tornado_onnx": Look("Tornado + ONNX Runtime", "#009E73", "v"),
    "triton_ensemble": Look("Triton, preprocessing inside (ensemble)", "#CC79A7", "D"),
    "gateway_torchscript": Look("Tornado gateway + Triton, TorchScript", "#56B4E9", "P"),
    GATEWAY: Look("Tornado gateway + Triton, ONNX", "#0072B2", "o"),
}
_OTHER = Look("", "#7F7F7F", "x")
#: The parts that are stacked, in this order, known ones first: groups of processes, …
GROUPS = {
    "gateway": "#5AA0D0",
    "front": "#88CCEE",
    "workers": "#DDCC77",
    "tokenisers": "#999933",
    "triton": "#AA4499",
    "instances": "#44AA99",
    "back": "#CC6677",
    # … and the stages of a request.
    "queue": "#CC6677",
    "preprocess": "#DDCC77",
    "infer": "#44AA99",
    "postprocess": "#AA4499",
}
_MORE = ("#B0B0B0", "#D98880", "#7FB3A5")


def order(arms: Iterable[str]) -> list[str]:
    """Return arms in the one order, unknown ones last."""
    found = dict.fromkeys(arms)
    return [name for name in LOOKS if name in found] + sorted(set(found) - set(LOOKS))


def look(arm: str) -> Look:
    """Return how an arm is drawn."""
    return LOOKS.get(arm, _OTHER)


def titles(results: Results) -> dict[str, str]:
    """Return every arm's title: the architecture's, or what the run calls it."""
    given = {arm.name: arm.title for arm in results.arms}
    seen = [w.arm for scenario in results.scenarios for w in scenario.windows]
    return {
        name: (LOOKS[name].title if name in LOOKS else given.get(name, name))
        for name in order([*LOOKS, *given, *seen])
    }


def groups(stacks: Iterable[Mapping[str, float]]) -> dict[str, str]:
    """Return every part of these stacks with its colour, in order."""
    found = dict.fromkeys(name for stack in stacks for name in stack)
    unknown = [name for name in found if name not in GROUPS]
    colours = {name: _MORE[at % len(_MORE)] for at, name in enumerate(sorted(unknown))}
    return {name: colour for name, colour in (GROUPS | colours).items() if name in found}

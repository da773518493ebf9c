"""What Locust's users ask, and what is wrong with an answer.

The models of the default repository are asked their golden cases, and texts of varied lengths
where they take text; the models of a `models.json` the texts of their `reference.json` and more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from gateway_preprocessor.goldens import FILE, Golden, difference

from gateway.releases.goldens import of_version
from loadtests.load import corpus
from loadtests.load import protocol as protocols
from loadtests.load.answers import Batch, Embedding, Scores, Single, Verdict
from loadtests.load.protocol import Protocol

ROOT = Path(__file__).parents[1]
TEXTS = 400
OK = 200
#: Under load a text is padded beside others: float32 in another order.
ROOM = 1e-3


class Digit(msgspec.Struct):
    """A digit with the scores of all ten."""

    label: Annotated[int, msgspec.Meta(ge=0, le=9)]
    scores: Annotated[list[float], msgspec.Meta(min_length=10, max_length=10)]


class Language(msgspec.Struct):
    """A language's code with its score."""

    label: str
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Languages(msgspec.Struct):
    """The likeliest languages."""

    labels: Annotated[list[Language], msgspec.Meta(min_length=1)]


#: What answers look like, by the name of the output in a `models.json` and by preprocessor.
OUTPUTS: dict[str, type[msgspec.Struct]] = {
    "embedding": Embedding,
    "scores": Scores,
    "minilm": Embedding,
    "tumor": Verdict,
    "digits": Digit,
    "langid": Languages,
}
#: The models of the default repository: whose golden cases they are asked, and if they take text.
REPOSITORY = {
    "minilm": ("minilm", True),
    "minilm_torchscript": ("minilm", True),
    "langid": ("langid", True),
    "digits": ("digits", False),
    "tumor": ("tumor", False),
}


class Case(NamedTuple):
    """One instance; `expected` is the right output by model version, as far as it is known."""

    input: Any
    expected: Mapping[int, Any] = {}
    tolerance: float = ROOM
    parameters: Mapping[str, Any] = {}


class Model(NamedTuple):
    """A model with what it is asked and what its outputs look like."""

    name: str
    output: str
    cases: Sequence[Case]


class Question(NamedTuple):
    """A request: its path and body, and the cases that it asks."""

    model: Model
    protocol: Protocol
    path: str
    body: bytes
    cases: Sequence[Case]

    @property
    def single(self) -> bool:
        """Whether the answer has one output instead of a list."""
        return len(self.cases) == 1


def ask(model: Model, protocol: Protocol, rows: int, chance: random.Random) -> Question:
    """Return a question of so many rows, drawn at random; one row is a single."""
    if rows == 1:
        cases: Sequence[Case] = [chance.choice(model.cases)]
    else:  # parameters hold for a whole request
        cases = chance.choices([case for case in model.cases if not case.parameters], k=rows)
    inputs = [case.input for case in cases]
    path = protocols.path(protocol, model.name, rows)
    given = protocols.content(protocol, inputs)
    if protocol == "predict" and cases[0].parameters:
        given["parameters"] = cases[0].parameters
    return Question(model, protocol, path, msgspec.json.encode(given), cases)


def wrong(
    question: Question, status: int, headers: Mapping[str, str], body: bytes, *, stamped: bool
) -> str | None:
    """Say what is wrong with an answer; None where it is right.

    The words are the same for the same fault, so that faults can be counted by them. `stamped`
    answers must say which release gave them.
    """
    if status != OK:
        return f"status {status} {_code(body)}".strip()
    try:
        if question.protocol == "v2":
            version, outputs = 0, _of_tensor(question, headers, body)
        else:
            version, outputs = _of_json(question, body, stamped=stamped)
    except (msgspec.DecodeError, ValueError, LookupError) as error:
        return f"not as promised: {error}"
    if len(outputs) != len(question.cases):
        return f"{len(outputs)} outputs for {len(question.cases)} instances"
    found = (
        _differs(case, output, version)
        for case, output in zip(question.cases, outputs, strict=True)
    )
    return next(filter(None, found), None)


def models(names: Sequence[str], catalogue: Path | None) -> list[Model]:
    """Return the named models of the default repository, or of a `models.json` (all without names).

    Raises ValueError for a name that is not there.
    """
    listed = {}
    if catalogue:
        listed = msgspec.json.decode(catalogue.read_bytes(), type=dict[str, dict[str, str]])
    known = list(listed) or list(REPOSITORY)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"no model {unknown[0]!r}; there are {', '.join(known)}")
    chosen = names or known
    texts = [Case(text) for text in corpus.texts(TEXTS)]
    if catalogue:
        references = msgspec.json.decode((catalogue.parent / "reference.json").read_bytes())
        outputs = {name: listed[name]["output"] for name in chosen}
        return [
            Model(name, output, [*_referred(references[name], output), *texts])
            for name, output in outputs.items()
        ]
    return [
        Model(name, package, [*_golden(name, package), *(texts if takes_text else [])])
        for name, (package, takes_text) in REPOSITORY.items()
        if name in chosen
    ]


def _referred(reference: Mapping[str, Any], output: str) -> Iterator[Case]:
    """Return the cases of a reference: version 1 is the only one there is."""
    for text, right in zip(reference["inputs"], reference["outputs"], strict=True):
        yield Case(text, {1: {output: right}})


def _golden(model: str, package: str) -> Iterator[Case]:
    """Return the golden cases of a preprocessor with what each version of the model answers."""
    folder = ROOT / "model_repository" / model
    path = ROOT / "preprocessors" / package / "src" / f"{package}_preprocessor" / FILE
    shipped = msgspec.json.decode(path.read_bytes(), type=list[Golden])
    versions = [1, *(int(found.parent.name) for found in folder.glob(f"*/{FILE}"))]
    by_version = {version: of_version(folder, version, shipped) for version in versions}
    for number, golden in enumerate(shipped):
        expected = {version: cases[number].output for version, cases in by_version.items()}
        tolerance = max(golden.output_tolerance, ROOM)
        yield Case(golden.input, expected, tolerance, golden.parameters)


@cache
def _decoder(output: str, *, single: bool) -> msgspec.json.Decoder[Any]:
    form = OUTPUTS[output]
    return msgspec.json.Decoder(Single[form] if single else Batch[form])  # type: ignore[valid-type]


def _of_json(question: Question, body: bytes, *, stamped: bool) -> tuple[int, Sequence[Any]]:
    """Return the model version that answered, 0 where none is told, and its outputs."""
    found = _decoder(question.model.output, single=question.single).decode(body)
    if stamped and found.model != question.model.name:
        raise ValueError(f"stamped {found.model!r} instead of {question.model.name!r}")
    if stamped and not (found.release and found.model_version and found.preprocessor):
        raise ValueError("a stamp is missing")
    return found.model_version, found.outputs


def _of_tensor(question: Question, headers: Mapping[str, str], body: bytes) -> Sequence[Any]:
    rows = protocols.tensor(body, int(headers[protocols.JSON_LENGTH]))
    if not np.isfinite(rows).all():
        raise ValueError("numbers that are not finite")
    form = OUTPUTS[question.model.output]
    (field,) = form.__struct_fields__
    return [msgspec.convert({field: row.tolist()}, form) for row in rows]


def _differs(case: Case, output: Any, version: int) -> str | None:
    right = case.expected.get(version or 1)
    if right is None or not difference(right, msgspec.to_builtins(output), case.tolerance):
        return None
    return f"not the right answer to {str(case.input)[:40]!r}"


def _code(body: bytes) -> str:
    """Return the code of an error of the gateway; nothing for another server's."""
    try:
        problem = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return str(problem.get("code", "")) if isinstance(problem, dict) else ""

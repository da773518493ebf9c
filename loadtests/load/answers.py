"""Judges every body that the server sends: right status, right stamps, right numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.load.connection import Answer
from loadtests.load.plan import Stamps, Stream
from loadtests.load.protocol import tensor
from loadtests.load.requests import Request

DIMENSIONS = 384
#: Every so many answers are compared with what is expected: each would cost more than it tells.
SAMPLE = 16
#: Largest difference of a probability from the golden case's, and of a score in half precision.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.02
T = TypeVar("T")


class Embedding(msgspec.Struct):
    """An embedding of 384 floats; any other number of them is wrong."""

    embedding: Annotated[list[float], msgspec.Meta(min_length=DIMENSIONS, max_length=DIMENSIONS)]


class Verdict(msgspec.Struct):
    """A label with its probability."""

    label: Literal["malignant", "benign"]
    probability: float


class Scores(msgspec.Struct):
    """The probabilities of at least two classes; they add up to one."""

    scores: Annotated[list[float], msgspec.Meta(min_length=2)]

    def __post_init__(self) -> None:
        if abs(sum(self.scores) - 1) > HALF_TOLERANCE:
            raise ValueError(f"the scores add up to {sum(self.scores)}")


class Single(msgspec.Struct, Generic[T]):
    """The answer to a single."""

    output: T
    model: str = ""
    release: str = ""
    model_version: int = 0
    preprocessor: str = ""

    @property
    def outputs(self) -> Sequence[T]:
        """The one output, as a batch has them."""
        return (self.output,)


class Batch(msgspec.Struct, Generic[T]):
    """The answer to a batch."""

    outputs: Sequence[T]
    model: str = ""
    release: str = ""
    model_version: int = 0
    preprocessor: str = ""


class Judge(Generic[T]):
    """Judges one stream's answers. `cosines` collects those of the compared embeddings."""

    def __init__(self, stream: Stream, output: type[T], field: str) -> None:
        self.cosines: list[float] = []
        self._rows = stream.rows
        self._output = output
        self._field = field
        self._decode: Callable[[bytes], Single[T] | Batch[T]]
        if stream.rows == 1:
            self._decode = msgspec.json.Decoder(Single[output]).decode  # type: ignore[valid-type]
        else:
            self._decode = msgspec.json.Decoder(Batch[output]).decode  # type: ignore[valid-type]
        self._outputs = self._of_tensor if stream.protocol == "v2" else self._of_json

    def wrong(self, answer: Answer, request: Request) -> str | None:
        """Say what is wrong with the answer, 200, to a request."""
        try:
            outputs = self._outputs(answer, request)
        except (msgspec.DecodeError, ValueError) as error:
            return f"{error}: {answer.body[:200]!r}"
        if len(outputs) != self._rows:
            return f"{len(outputs)} outputs for {self._rows} instances"
        return self.differs(outputs, request.first)

    def _of_json(self, answer: Answer, request: Request) -> Sequence[T]:
        found = self._decode(answer.body)
        stamps = Stamps(found.model, found.release, found.model_version, found.preprocessor)
        if request.target.stamps not in {None, stamps}:
            raise ValueError(f"{stamps} instead of {request.target.stamps}")
        return found.outputs

    def _of_tensor(self, answer: Answer, _: Request) -> Sequence[T]:
        rows = tensor(answer.body, answer.json)
        return [msgspec.convert({self._field: row.tolist()}, self._output) for row in rows]

    def differs(self, outputs: Sequence[T], first: int) -> str | None:
        """Say how outputs differ from what is expected; `first` is the first one's instance."""
        raise NotImplementedError


class EmbeddingJudge(Judge[Embedding]):
    """Compares one embedding of every so many answers with the bare model's."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, Embedding, "embedding")
        self._least_cosine = stream.least_cosine
        self._expected: NDArray[np.float32] | None = None
        if stream.expected:
            self._expected = np.load(stream.expected)
        self._seen = 0

    def differs(self, outputs: Sequence[Embedding], first: int) -> str | None:
        """Say so where the cosine is too small."""
        self._seen += 1
        if self._expected is None or self._seen % SAMPLE:
            return None
        row = self._seen // SAMPLE % self._rows
        found = np.array(outputs[row].embedding)
        expected = self._expected[(first + row) % len(self._expected)]
        norms = np.linalg.norm(found) * np.linalg.norm(expected)
        cosine = float(found @ expected / norms) if norms else 0.0
        self.cosines.append(cosine)
        if cosine < self._least_cosine:
            return f"instance {first + row}: cosine {cosine:.5f} to the bare model's embedding"
        return None


class VerdictJudge(Judge[Verdict]):
    """Compares every verdict with its golden case's."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, Verdict, "verdict")
        self._expected: list[Verdict] = []
        if stream.expected:
            text = Path(stream.expected).read_bytes()
            self._expected = msgspec.json.decode(text, type=list[Verdict])

    def differs(self, outputs: Sequence[Verdict], first: int) -> str | None:
        """Say so where a label or a probability is another."""
        if not self._expected:
            return None
        for position, output in enumerate(outputs, first):
            expected = self._expected[position % len(self._expected)]
            close = abs(output.probability - expected.probability) <= TOLERANCE
            if output.label != expected.label or not close:
                return f"instance {position}: {output} instead of {expected}"
        return None


class ScoresJudge(Judge[Scores]):
    """Compares one row's scores of every so many answers with the bare model's."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, Scores, "scores")
        self._expected: list[list[float]] = []
        if stream.expected:
            text = Path(stream.expected).read_bytes()
            self._expected = msgspec.json.decode(text, type=list[list[float]])
        self._seen = 0

    def differs(self, outputs: Sequence[Scores], first: int) -> str | None:
        """Say so where a score is another."""
        self._seen += 1
        if not self._expected or self._seen % SAMPLE:
            return None
        row = self._seen // SAMPLE % self._rows
        found = np.array(outputs[row].scores)
        expected = np.array(self._expected[(first + row) % len(self._expected)])
        if found.shape == expected.shape and (abs(found - expected) <= HALF_TOLERANCE).all():
            return None
        return f"instance {first + row}: {found} instead of {expected}"


JUDGES: dict[str, type[Any]] = {
    "embedding": EmbeddingJudge,
    "verdict": VerdictJudge,
    "scores": ScoresJudge,
}


def judge(stream: Stream) -> Judge[Any]:
    """Return who judges this stream's answers."""
    found: Judge[Any] = JUDGES[stream.answers](stream)
    return found

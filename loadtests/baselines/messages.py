"""Bodies of requests and answers, the same for every baseline that answers HTTP by itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import orjson
from numpy.typing import NDArray

Form = Literal["single", "batch"]
JSON = "application/json"
Text = Annotated[str, msgspec.Meta(min_length=1)]
#: The gateway's own bound of a batch.
MOST_ROWS = 1024


class Single(msgspec.Struct):
    """One text."""

    input: Text


class Batch(msgspec.Struct):
    """Several texts."""

    inputs: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=MOST_ROWS)]


_SINGLE = msgspec.json.Decoder(Single)
_BATCH = msgspec.json.Decoder(Batch)


class Refused(Exception):
    """A request that gets `status` and `reason` instead of an answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def texts(form: Form, body: bytes) -> list[str]:
    """Read a request. Raises Refused: 400 for what is not JSON, 422 for what is not texts."""
    try:
        return [_SINGLE.decode(body).input] if form == "single" else _BATCH.decode(body).inputs
    except msgspec.ValidationError as error:
        raise Refused(422, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, str(error)) from None


def answer(form: Form, output: str, rows: NDArray[Any]) -> bytes:
    """Write rows, float32 (texts, …), each under the name `output`."""
    found = [{output: row} for row in rows]
    content = {"output": found[0]} if form == "single" else {"outputs": found}
    # Of a float32 no more digits are written than it has: half the bytes of `tolist()`.
    written: bytes = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return written


def problem(reason: str) -> bytes:
    """Write what went wrong."""
    return msgspec.json.encode({"error": reason})

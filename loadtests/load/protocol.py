"""How servers are asked for predictions: the gateway's endpoints, or Triton's own (`v2`).

With `v2` texts go to the model's ensemble as a BYTES tensor TEXT (rows, 1), and numbers come back
as bytes, as Triton's own client asks for them: much less work for it than JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Protocol = Literal["predict", "v2"]
#: The header that says how much of Triton's answer is JSON.
JSON_LENGTH = "Inference-Header-Content-Length"


def path(protocol: Protocol, model: str, rows: int) -> str:
    """Return the path of a request for so many instances."""
    if protocol == "v2":
        return f"/v2/models/{model}_ensemble/infer"
    return f"/{model}_{'single' if rows == 1 else 'batch'}_predict"


def content(protocol: Protocol, inputs: Sequence[Any]) -> dict[str, Any]:
    """Return what such a request carries, to be encoded as JSON; one instance is a single."""
    if protocol == "v2":
        text = {"name": "TEXT", "shape": [len(inputs), 1], "datatype": "BYTES", "data": inputs}
        return {"inputs": [text], "parameters": {"binary_data_output": True}}
    return {"input": inputs[0]} if len(inputs) == 1 else {"inputs": inputs}


def tensor(body: bytes, json_length: int) -> NDArray[np.float32]:
    """Read Triton's answer: a JSON head, then its only output's numbers, in the output's shape.

    Raises ValueError, msgspec.DecodeError.
    """
    (output,) = msgspec.json.decode(body[:json_length])["outputs"]
    return np.frombuffer(body, "<f4", offset=json_length).reshape(output["shape"])

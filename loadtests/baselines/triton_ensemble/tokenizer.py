"""The ensemble's first step, as Triton's Python backend runs it: texts to tokens.

Copied into the repository as a model's `model.py`; its environment has numpy 1.26, with which the
stub takes BYTES tensors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    """One instance: a process."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer that lies beside this file."""
        given = json.loads(args["model_config"])["parameters"]
        self._tokenizer = Tokenizer.from_file(str(Path(__file__).parent / "tokenizer.json"))
        self._tokenizer.enable_truncation(int(given["most_tokens"]["string_value"]))
        step = int(given["length_step"]["string_value"])
        self._tokenizer.enable_padding(pad_to_multiple_of=step)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Tokenise each request by itself: each is padded to its own longest text."""
        return [self._tokens(request) for request in requests]

    def _tokens(self, request: Any) -> Any:
        given = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        try:
            texts = [item.decode() for item in given.ravel()]
        except UnicodeDecodeError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"TEXT: {error}"))
        found = self._tokenizer.encode_batch_fast(texts)
        tensors = {
            "input_ids": np.array([item.ids for item in found], np.int64),
            "attention_mask": np.array([item.attention_mask for item in found], np.int64),
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in tensors.items()]
        )

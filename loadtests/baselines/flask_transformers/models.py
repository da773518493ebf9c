"""Models as Transformers loads them from their checkpoints, the last used ones kept."""

from __future__ import annotations

import threading
from typing import Any

import torch
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from loadtests.baselines import catalogue
from loadtests.baselines.chunks import in_chunks

logging.set_verbosity_error()
logging.disable_progress_bar()


class Loaded:
    """One model with its tokenizer."""

    def __init__(self, model: catalogue.Model, rows: int) -> None:
        self.output = model.output
        self._rows = rows
        self._tokenizer = AutoTokenizer.from_pretrained(model.checkpoint)
        if model.output == "embedding":
            found = AutoModel.from_pretrained(model.checkpoint, add_pooling_layer=False)
        else:
            found = AutoModelForSequenceClassification.from_pretrained(model.checkpoint)
        self._model = found.eval()

    def predict(self, texts: list[str]) -> NDArray[Any]:
        """Return float32 (texts, dimensions)."""
        return in_chunks(texts, self._rows, self._infer)

    def _infer(self, texts: list[str]) -> NDArray[Any]:
        inputs = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=catalogue.MOST_TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            found = self._model(**inputs)
            if self.output == "scores":
                rows = torch.softmax(found.logits, -1)
            else:
                rows = _pooled(found.last_hidden_state, inputs["attention_mask"])
        array: NDArray[Any] = rows.numpy()
        return array


class Models:
    """All models of the catalogue; of each at most one copy is loaded, `kept` of them at once."""

    def __init__(self, models: dict[str, catalogue.Model], kept: int, rows: int) -> None:
        self._models = models
        # With a condition, threads that want the same model wait for the one that loads it.
        self._loaded = cached(LRUCache(kept), condition=threading.Condition())(
            lambda name: Loaded(models[name], rows)
        )

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def __getitem__(self, name: str) -> Loaded:
        """Return a model, loaded first where it is not."""
        found: Loaded = self._loaded(name)
        return found


def _pooled(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean of the tokens' vectors under the mask, normalised (the model's own 1_Pooling)."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(mean, dim=-1)

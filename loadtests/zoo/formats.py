"""One network in the formats that the architectures run, each with the notice in it."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save_file

from loadtests.baselines.catalogue import link
from loadtests.bert.build import scripted
from loadtests.bert.network import CLASSES, Bert, Size
from loadtests.bert.texts import TOKENIZER
from loadtests.zoo import NOTICE

OPSET = 17
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "scores"
PARTS = ("query", "key", "value")


def checkpoint(model: Bert, size: Size, folder: Path) -> None:
    """Write a folder that Transformers' AutoModelForSequenceClassification loads."""
    folder.mkdir()
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "notice": NOTICE,
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "max_position_embeddings": size.positions,
        "type_vocab_size": 1,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "num_labels": CLASSES,
    }
    tokenizer = {"tokenizer_class": "BertTokenizer", "model_max_length": size.positions}
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    weights = {name: tensor.contiguous() for name, tensor in _weights(model)}
    save_file(weights, folder / "model.safetensors", {"format": "pt", "notice": NOTICE})
    link(TOKENIZER, folder / "tokenizer.json")


def torchscript(model: Bert, path: Path) -> None:
    """Write the frozen module."""
    torch.jit.save(scripted(model, half=False), path, _extra_files={"notice.txt": NOTICE})


def graph(model: Bert, path: Path) -> None:
    """Write the ONNX graph, rows and tokens dynamic."""
    ids = torch.zeros((2, 8), dtype=torch.int64)
    buffer = io.BytesIO()
    ragged = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and several times as fast as the newer one
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids)),
            buffer,
            input_names=list(INPUTS),
            output_names=[f"{OUTPUT}__0"],
            dynamic_axes={**dict.fromkeys(INPUTS, ragged), f"{OUTPUT}__0": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    found = onnx.load_from_string(buffer.getvalue())
    found.doc_string = NOTICE
    onnx.save(found, path)


def _weights(model: Bert) -> Iterator[tuple[str, torch.Tensor]]:
    """Name the weights as Transformers' BertForSequenceClassification does."""
    yield "bert.embeddings.word_embeddings.weight", model.words.weight
    yield "bert.embeddings.position_embeddings.weight", model.places.weight
    yield "bert.embeddings.token_type_embeddings.weight", model.segments[None]
    yield from _linear("bert.embeddings.LayerNorm", model.norm)
    for number, layer in enumerate(model.layers):
        own: Any = layer
        name = f"bert.encoder.layer.{number}"
        for kind, joined in own.query_key_value.named_parameters():
            for part, tensor in zip(PARTS, joined.chunk(len(PARTS)), strict=True):
                yield f"{name}.attention.self.{part}.{kind}", tensor
        yield from _linear(f"{name}.attention.output.dense", own.mixed)
        yield from _linear(f"{name}.attention.output.LayerNorm", own.norm)
        yield from _linear(f"{name}.intermediate.dense", own.wide)
        yield from _linear(f"{name}.output.dense", own.narrow)
        yield from _linear(f"{name}.output.LayerNorm", own.last_norm)
    yield from _linear("bert.pooler.dense", model.pooler)
    yield from _linear("classifier", model.head)


def _linear(name: str, module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{name}.weight", module.weight
    yield f"{name}.bias", module.bias

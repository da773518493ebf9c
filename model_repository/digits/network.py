"""The convolutional network of `digits`: its shape, its training and its ONNX form."""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

Floats = NDArray[np.float32]
FULL = 16
BATCH = 128
EPOCHS = 16
LEARNING_RATE = 3e-3


class Network(nn.Module):
    """Ink (rows, 1, 8, 8), 0 to 16 → probabilities (rows, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """What training compares with the target."""
        return self.layers(image / FULL)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """What is exported."""
        return torch.softmax(self.logits(image), dim=1)

    def predict(self, images: Floats) -> Floats:
        """Probabilities (rows, 10) of images (rows, 1, 8, 8), as torch computes them."""
        with torch.no_grad():
            return self(torch.from_numpy(images)).numpy()


def train(images: Floats, target: NDArray[np.int64], seed: int) -> Network:
    """Train on images (rows, 1, 8, 8), distorted anew in each epoch; same seed, same network."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(target)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(inputs)).split(BATCH):
            logits = network.logits(distort(inputs[rows]))
            loss = functional.cross_entropy(logits, targets[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / len(inputs):.4f}")
    return network.eval()


def distort(images: torch.Tensor) -> torch.Tensor:
    """Turn, slant, scale and move each image a little, and make its ink bolder or fainter."""
    count = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(count).uniform_(low, high)

    angle, slant = uniform(-0.2, 0.2), uniform(-0.15, 0.15)
    wide, high = uniform(0.85, 1.2), uniform(0.9, 1.15)
    affine = torch.stack(
        [
            *(wide * angle.cos(), wide * (slant - angle.sin()), uniform(-0.12, 0.12)),
            *(high * angle.sin(), high * angle.cos(), uniform(-0.1, 0.1)),
        ],
        dim=1,
    ).reshape(count, 2, 3)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False).clamp(0, FULL)
    return FULL * (moved / FULL) ** uniform(0.6, 1.5).reshape(count, 1, 1, 1)


def export(network: Network) -> onnx.ModelProto:
    """Turn the network into ONNX: `image` (rows, 1, 8, 8) → `scores` (rows, 10)."""
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes={"image": {0: torch.export.Dim("rows")}},
        opset_version=18,
        verbose=False,
    )
    model = program.model_proto
    # The exporter notes the source lines of every node: a path of the machine that ran it.
    graph = model.graph
    for part in [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    return model

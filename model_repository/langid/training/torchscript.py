"""The model as TorchScript: code points in, language probabilities out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from training import features
from training.weights import DAMPING, Weights


class Table(nn.Module):
    """The weights: looks hashes up and adds up their evidence.

    The file holds them as pairs; loading it spreads them into a table of all n-grams and
    varieties (11 MB), because gathering whole rows is ten times faster than following pairs.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for name in ("keys", "starts", "columns", "weights"):
            self.register_buffer(name, torch.from_numpy(getattr(weights, name)))
        self.varieties = len(weights.bias)
        self.register_buffer("rows", torch.empty(0, dtype=torch.int8))

    def forward(self, hashes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of the weights, (batch, varieties) int32, and the number of hits.

        `hashes` is (batch, n-grams) int32; only those count that are `wanted` and known.
        """
        unknown = self.keys.size(0)  # the last row, all zeros
        position = torch.searchsorted(self.keys, hashes).clamp(max=unknown - 1)
        hit = wanted & (self.keys[position] == hashes)
        position = position.masked_fill(~hit, unknown)
        rows = self.rows.index_select(0, position.flatten())
        sums = rows.view(hashes.size(0), -1, self.varieties).sum(1, dtype=torch.int32)
        return sums, hit.sum(1, keepdim=True)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Return what the file holds."""
        return self.keys, self.starts, self.columns, self.weights, self.varieties

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, Tensor, int]) -> None:
        """Take what the file held, and build the table."""
        self.training = False
        self.keys, self.starts, self.columns, self.weights, self.varieties = state
        gram = torch.repeat_interleave(self.starts[1:] - self.starts[:-1]).to(torch.int64)
        size = [self.keys.size(0) + 1, self.varieties]
        rows = torch.zeros(size, dtype=torch.int8, device=self.keys.device)
        rows[gram, self.columns.to(torch.int64)] = self.weights
        self.rows = rows


class LangId(nn.Module):
    """`Weights` as a graph: hashes the n-grams of each row and turns their evidence into answers.

    Padding (0, at the end) never makes an n-gram and evidence is summed in integers, so a row's
    result depends neither on its padding nor on the rows beside it.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        # Plain attributes: the order in which constants are written depends on Python's hash seed.
        self.longest = features.LONGEST
        self.block_bits = features.BLOCK_BITS
        self.block = features.BLOCK
        self.prime = features.PRIME
        self.start = features.START
        self.mask = features.MASK
        self.space = features.SPACE
        self.scale = weights.scale
        self.damping = DAMPING
        self.count = int(weights.languages.max()) + 1
        self.table = Table(weights)
        for name in ("per_gram", "bias", "languages"):
            self.register_buffer(name, torch.from_numpy(getattr(weights, name)))

    def forward(self, codepoints: Tensor) -> Tensor:
        """Map (batch, length) int32 code points to (batch, languages) float32 probabilities."""
        codes = codepoints.to(torch.int64)
        length = codes.size(1)
        real = codes != 0
        letter = real & (codes != self.space)
        ahead = nn.functional.pad(codes, [0, self.longest - 1])

        running = torch.full_like(codes, self.start)
        hashes = [self.mix(running, (codes >> self.block_bits) + self.block)]
        wanted = [letter]
        for order in range(self.longest):
            last = ahead[:, order : order + length]
            running = self.mix(running, last)
            hashes.append(running)
            wanted.append(letter if order == 0 else real & (last != 0))

        sums, hits = self.table(torch.cat(hashes, 1).to(torch.int32), torch.cat(wanted, 1))
        known = hits.to(torch.float32)
        evidence = sums.to(torch.float32) * self.scale + known * self.per_gram
        logits = evidence * known.clamp(min=1.0).pow(-self.damping)
        likely = torch.softmax(logits + self.bias, dim=1)
        answer = torch.zeros(codes.size(0), self.count, dtype=torch.float32, device=codes.device)
        return answer.index_add(1, self.languages, likely)

    def mix(self, running: Tensor, value: Tensor) -> Tensor:
        """Extend hashes by one value each."""
        return ((running * self.prime) ^ value) & self.mask


def save(weights: Weights, path: Path) -> None:
    """Write the model without TorchScript's debug records, which hold paths of this machine."""
    path.parent.mkdir(exist_ok=True)
    torch.jit.script(LangId(weights).eval()).save(str(path))
    reader = torch._C.PyTorchFileReader(str(path))  # noqa: SLF001 - torch has no public way
    kept = {
        name: reader.get_record(name)
        for name in reader.get_all_records()
        if not name.endswith(".debug_pkl") and name not in {"version", ".data/serialization_id"}
    }
    writer = torch._C.PyTorchFileWriter(str(path))  # noqa: SLF001
    for name, content in kept.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()

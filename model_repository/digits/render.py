"""Turns the data set's 8 x 8 arrays into image files, as clients might send them."""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
#: Shades per count of ink: 16 counts stay within 255 and every shade is exact.
STEP = 15
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Rendering(NamedTuple):
    """How an array becomes a file: sizes are (width, height) in pixels.

    The digit is scaled to `digit` and laid with its top left corner at `corner` of an image of
    `size`. `ink` is what the digit is drawn in on the opposite ground: "light", "dark", or
    "transparent" for dark ink on a transparent ground.
    """

    format: str
    size: tuple[int, int]
    digit: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    ink: str = "light"
    scaling: str = "nearest"
    quality: int = 90

    def __str__(self) -> str:
        """One line for tables: format, size, what is special."""
        return (
            f"{self.format} {self.size[0]} x {self.size[1]}, {self.ink} ink,"
            f" digit {self.digit[0]} x {self.digit[1]} at {self.corner[0]}, {self.corner[1]},"
            f" {self.scaling}"
        )

    def file(self, array: Array) -> bytes:
        """Render one array (8, 8) of ink, 0 to 16."""
        counts = Image.fromarray((array * STEP).astype(np.uint8))
        ink = Image.new("L", self.size)
        ink.paste(counts.resize(self.digit, FILTERS[self.scaling]), self.corner)
        if self.ink == "transparent":
            image = Image.new("LA", self.size)
            image.putalpha(ink)
        else:
            image = ink if self.ink == "light" else Image.eval(ink, lambda shade: 255 - shade)
        file = io.BytesIO()
        image.save(file, self.format, quality=self.quality)
        return file.getvalue()


#: What the held-out images are rendered as, for the published figures.
PUBLISHED = (
    Rendering("PNG", (8, 8), (8, 8)),
    Rendering("PNG", (8, 8), (8, 8), ink="dark"),
    Rendering("JPEG", (16, 16), (16, 16), scaling="bicubic"),
    Rendering("PNG", (28, 28), (20, 20), (4, 4), "dark", "bicubic"),
    Rendering("PNG", (64, 64), (64, 64), scaling="bilinear"),
    Rendering("JPEG", (64, 64), (48, 48), (3, 12), "dark", "bilinear"),
    Rendering("PNG", (100, 60), (50, 50), (45, 2), "transparent", "bicubic"),
    Rendering("JPEG", (200, 300), (120, 120), (70, 20), "dark", "bicubic", 75),
    Rendering("PNG", (300, 200), (160, 160), (10, 30), "light", "nearest"),
    Rendering("JPEG", (200, 300), (200, 300), (0, 0), "light", "bilinear", 75),
    Rendering("PNG", (300, 200), (300, 200), (0, 0), "dark", "bilinear"),
)

#: How the golden cases 0 to 9 are rendered: whole multiples, so that the arrays stay exact.
GOLDEN = (
    Rendering("PNG", (8, 8), (8, 8)),
    Rendering("PNG", (8, 8), (8, 8), ink="dark"),
    Rendering("PNG", (16, 16), (16, 16)),
    Rendering("PNG", (28, 28), (24, 24), (2, 2), "dark"),
    Rendering("JPEG", (64, 64), (64, 64)),
    Rendering("JPEG", (200, 300), (120, 120), (70, 20), "dark", quality=75),
    Rendering("PNG", (100, 60), (48, 48), (45, 2), "transparent"),
    Rendering("PNG", (200, 300), (160, 160), (10, 30)),
    Rendering("JPEG", (90, 40), (40, 40), (50, 0), "dark"),
    Rendering("PNG", (33, 71), (32, 32), (1, 39), "dark"),
)


def random_rendering(random: np.random.Generator) -> Rendering:
    """Draw a rendering for training: any size, place, polarity, scaling, format; some stretched."""
    height = int(random.integers(8, 65))
    width = height
    if random.random() < 1 / 3:
        width = max(8, round(height * random.uniform(0.5, 2.0)))
    ink = str(random.choice(["light", "dark", "transparent"], p=[0.45, 0.45, 0.1]))
    compressed = height >= 16 and ink != "transparent" and random.random() < 1 / 2  # noqa: PLR2004
    margins = random.integers(0, 25, 4) * (random.random() < 2 / 3)
    return Rendering(
        format="JPEG" if compressed else "PNG",
        size=(int(width + margins[0] + margins[1]), int(height + margins[2] + margins[3])),
        digit=(width, height),
        corner=(int(margins[0]), int(margins[2])),
        ink=ink,
        scaling=str(random.choice(list(FILTERS))),
        quality=int(random.integers(60, 96)),
    )

"""First half of preprocessing: the bytes of a PNG or JPEG → shades of grey.

The header alone decides whether the pixels are decoded at all. Pillow's format classes are used
directly: no other format can be reached, and `Image.open`'s own bomb warning never fires.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from gateway_preprocessor import InvalidInput
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

PATH = "$.image"
_FORMATS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
}
#: Sides in pixels, and their product.
MIN_SIDE = 4
MAX_SIDE = 8192
MAX_PIXELS = 16_000_000
#: Shades (of 256) between the lightest and the darkest below which an image shows nothing.
MIN_CONTRAST = 24


def grey(content: bytes) -> NDArray[np.float32]:
    """Decode `content` to shades (height, width): 0 is black, 255 white, as the image is seen.

    Transparent images are laid on white, or on black where white would hide everything.
    Raises InvalidInput.
    """
    image = _open(content)
    _check_size(*image.size)
    try:
        image.load()
        with contextlib.suppress(Exception):  # broken EXIF data says nothing about the pixels
            ImageOps.exif_transpose(image, in_place=True)
        return _shades(image)
    except Exception as error:
        raise InvalidInput(PATH, f"cannot be decoded: {error}") from error


def _open(content: bytes) -> ImageFile.ImageFile:
    """Read the header only."""
    if not content:
        raise InvalidInput(PATH, "is empty")
    for signature, format_class in _FORMATS.items():
        if content.startswith(signature):
            try:
                return format_class(io.BytesIO(content))
            except Exception as error:
                raise InvalidInput(PATH, f"has a broken header: {error}") from error
    raise InvalidInput(PATH, "is neither a PNG nor a JPEG file")


def _check_size(width: int, height: int) -> None:
    size = f"is {width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise InvalidInput(PATH, f"{size}, which is too small: at least {MIN_SIDE} x {MIN_SIDE}")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InvalidInput(
            PATH,
            f"{size}, which is too large: at most {MAX_SIDE} a side"
            f" and {MAX_PIXELS // 1_000_000} megapixels",
        )


def _shades(image: Image.Image) -> NDArray[np.float32]:
    if image.mode.startswith("I"):  # 16 bits a pixel
        return np.asarray(image, np.float32) / np.float32(257)
    if not image.has_transparency_data:
        return np.asarray(image.convert("L"), np.float32)
    image = image.convert("RGBA")
    shades = _laid_on("white", image)
    return shades if np.ptp(shades) >= MIN_CONTRAST else _laid_on("black", image)


def _laid_on(paper: str, image: Image.Image) -> NDArray[np.float32]:
    laid = Image.alpha_composite(Image.new("RGBA", image.size, paper), image)
    return np.asarray(laid.convert("L"), np.float32)

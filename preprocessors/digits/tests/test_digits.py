"""The digits preprocessor: every kind of file it takes, and every file it must refuse."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from digits_preprocessor import DigitsPreprocessor
from digits_preprocessor.decode import MAX_PIXELS, MAX_SIDE
from gateway_preprocessor import InvalidInput, Payload, Prepared, Runner, goldens, testing
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFile

Floats = NDArray[np.float32]
#: Rounding of shades to bytes, in counts of ink (0 to 16).
ROUNDING = 0.1
#: What JPEG at quality 95 does to large flat cells, in counts of ink.
LOSSY = 0.5


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(DigitsPreprocessor())


@pytest.fixture(scope="module")
def array() -> Floats:
    """Ink (8, 8), 0 to 16, of a golden case: an array of the data set."""
    return goldens.load(DigitsPreprocessor)[3].tensors["image"].array()[0]


@pytest.fixture(scope="module")
def light(array: Floats) -> Image.Image:
    """That digit as a grey image, light ink on black, 64 x 64 in an 80 x 100 margin."""
    image = Image.new("L", (80, 100))
    image.paste(Image.fromarray(np.kron(array * 15, np.ones((8, 8))).astype(np.uint8)), (5, 30))
    return image


def saved(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def prepare(runner: Runner, content: bytes, media_type: str = "image/png") -> Prepared | Exception:
    (result,) = runner.prepare([Payload(content, media_type)])
    return result


def ink(runner: Runner, content: bytes) -> Floats:
    item = prepare(runner, content)
    assert isinstance(item, Prepared), item
    return item.tensors["image"][0]


def reason(runner: Runner, content: bytes) -> str:
    refused = prepare(runner, content)
    assert isinstance(refused, InvalidInput), refused
    ((path, text),) = refused.problems
    assert path == "$.image"
    return text


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header claims a size, followed by `chunks`."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in (header, *chunks):
        checksum = zlib.crc32(name + data)
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)]
    return b"".join(parts)


def test_contract() -> None:
    assert testing.check(DigitsPreprocessor)["goldens"] >= 8


def test_raw_body_and_base64_agree(runner: Runner, light: Image.Image) -> None:
    content = saved(light)
    text = json.dumps({"image": base64.b64encode(content).decode()}).encode()
    (item,) = runner.prepare([Payload(text)])
    assert isinstance(item, Prepared)
    np.testing.assert_array_equal(item.tensors["image"][0], ink(runner, content))


def dark(image: Image.Image) -> Image.Image:
    return Image.eval(image, lambda shade: 255 - shade)


def transparent(shade: int) -> Callable[[Image.Image], Image.Image]:
    def convert(image: Image.Image) -> Image.Image:
        drawn = Image.new("LA", image.size, shade)
        drawn.putalpha(image)
        return drawn.convert("RGBA")

    return convert


def wide_shades(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def palette(image: Image.Image) -> Image.Image:
    return dark(image).quantize(32, dither=Image.Dither.NONE)


def clear_palette(image: Image.Image) -> Image.Image:
    shades = palette(image)
    shades.info["transparency"] = shades.getpixel((0, 0))
    return shades


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image,
        dark,
        wide_shades,
        palette,
        clear_palette,
        transparent(0),
        transparent(255),
        lambda image: image.convert("RGB"),
        lambda image: dark(image).convert("RGBA"),
        lambda image: Image.eval(image, lambda shade: 200 - shade // 2),
    ],
    ids=[
        *("light", "dark", "16-bit", "palette", "clear-palette"),
        *("dark-on-clear", "light-on-clear", "rgb", "rgba", "pale"),
    ],
)
def test_modes_of_png(
    runner: Runner, light: Image.Image, array: Floats, convert: Callable[[Image.Image], Image.Image]
) -> None:
    np.testing.assert_allclose(ink(runner, saved(convert(light))), array, atol=2 * ROUNDING)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_modes_of_jpeg(
    runner: Runner, light: Image.Image, array: Floats, mode: str, progressive: bool
) -> None:
    content = saved(dark(light).convert(mode), "JPEG", quality=95, progressive=progressive)
    np.testing.assert_allclose(ink(runner, content), array, atol=LOSSY)


def test_one_bit_images(runner: Runner, light: Image.Image) -> None:
    black_white = light.point(lambda shade: 255 * (shade > 100), mode="1")
    np.testing.assert_array_equal(
        ink(runner, saved(black_white)), ink(runner, saved(dark(black_white.convert("L"))))
    )


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_orientation_is_applied(
    runner: Runner,
    light: Image.Image,
    array: Floats,
    orientation: int,
    undo: Image.Transpose,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(light.transpose(undo), "JPEG", quality=95, exif=exif.tobytes())
    np.testing.assert_allclose(ink(runner, content), array, atol=LOSSY)
    np.testing.assert_allclose(
        ink(runner, saved(light.transpose(undo), exif=exif.tobytes())), array, atol=ROUNDING
    )


def test_broken_exif_does_not_matter(runner: Runner, light: Image.Image, array: Floats) -> None:
    content = saved(light, exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\0\1")
    np.testing.assert_allclose(ink(runner, content), array, atol=ROUNDING)


@pytest.mark.parametrize("scale", [1, 2, 3, 12, 25])
def test_size_place_and_polarity_do_not_matter(runner: Runner, array: Floats, scale: int) -> None:
    digit = np.kron(array * 15, np.ones((scale, scale))).astype(np.uint8)
    for before, after in [(0, 0), (1, 0), (7, 30)]:
        image = np.pad(digit, ((before, after), (after, before)))
        for shades in (image, 255 - image):
            np.testing.assert_allclose(
                ink(runner, saved(Image.fromarray(shades))), array, atol=ROUNDING
            )


def test_proportions_are_kept(runner: Runner) -> None:
    image = Image.new("L", (90, 50), 255)
    ImageDraw.Draw(image).rectangle((20, 10, 25, 41), fill=0)
    expected = np.zeros((8, 8))
    expected[:, 3:5] = 12  # 6 of 32 pixels wide: 0.75 of each of the two middle columns
    np.testing.assert_allclose(ink(runner, saved(image)), expected * 16 / 12, atol=ROUNDING)


@pytest.mark.parametrize(
    ("width", "height"), [(50_000, 50_000), (MAX_SIDE + 1, 4), (4096, 4096), (2**31 - 1, 2**31 - 1)]
)
def test_bombs_are_refused_by_their_header(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    content = png(width, height, (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    # Pixels exist only once Pillow loads them, which is what must not happen.
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    text = reason(runner, content)
    assert text.startswith(f"is {width} x {height} pixels, which is too large")


def test_a_jpeg_bomb_is_refused_by_its_header(runner: Runner, light: Image.Image) -> None:
    content = saved(light, "JPEG")
    size = content.index(b"\xff\xc0") + 5
    bomb = content[:size] + struct.pack(">HH", 65_500, 65_500) + content[size + 4 :]
    assert "too large" in reason(runner, bomb)


def test_the_largest_image_is_taken(runner: Runner, light: Image.Image, array: Floats) -> None:
    height = MAX_PIXELS // MAX_SIDE
    image = Image.new("L", (MAX_SIDE, height))
    image.paste(light.resize((light.width * 16, light.height * 16), Image.Resampling.NEAREST))
    np.testing.assert_allclose(ink(runner, saved(image)), array, atol=ROUNDING)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (8, 3)])
def test_tiny_images_are_refused(runner: Runner, size: tuple[int, int]) -> None:
    text = reason(runner, saved(Image.new("L", size)))
    assert text == f"is {size[0]} x {size[1]} pixels, which is too small: at least 4 x 4"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_truncated_files_are_refused(runner: Runner, light: Image.Image, file_format: str) -> None:
    content = saved(light, file_format)
    for kept in [9, 30, len(content) // 2, len(content) * 3 // 4]:
        text = reason(runner, content[:kept])
        assert text.startswith(("cannot be decoded", "has a broken header"))


def test_damaged_files_never_raise_anything_else(runner: Runner, light: Image.Image) -> None:
    random = np.random.default_rng(7)
    for content in (saved(light), saved(light, "JPEG"), saved(palette(light))):
        for _ in range(300):
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[random.integers(3, len(damaged), 4)] = random.integers(0, 256, 4)
            result = prepare(runner, damaged.tobytes())
            assert isinstance(result, (Prepared, InvalidInput)), result


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"])
def test_other_formats_are_refused(runner: Runner, light: Image.Image, file_format: str) -> None:
    assert reason(runner, saved(light, file_format)) == "is neither a PNG nor a JPEG file"


@pytest.mark.parametrize("content", [b"hello", b"%PDF-1.7", b"<svg/>", b"\x89PNG", b"\xff\xd8"])
def test_what_is_no_image_is_refused(runner: Runner, content: bytes) -> None:
    assert reason(runner, content) == "is neither a PNG nor a JPEG file"


def test_nothing_is_refused(runner: Runner) -> None:
    assert reason(runner, b"") == "is empty"


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_blank_images_are_refused(runner: Runner, shade: int) -> None:
    for image in (Image.new("L", (64, 64), shade), Image.new("LA", (64, 64), (shade, 0))):
        assert "same shade everywhere" in reason(runner, saved(image))
        assert "same shade everywhere" in reason(runner, saved(image.convert("L"), "JPEG"))


def test_a_speck_is_refused(runner: Runner) -> None:
    image = Image.new("L", (64, 64))
    image.putpixel((40, 20), 255)
    assert reason(runner, saved(image)) == "shows no digit: the only mark is 1 pixels large"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"{}", "$.image"),
        (b'{"image": 7}', "$.image"),
        (b'{"image": null}', "$.image"),
        (b'{"image": "not base64!"}', "$.image"),
        (b'{"image": ""}', "$.image"),
        (b'{"image": "aGVsbG8=", "name": "x"}', "$.name"),
        (b'"aGVsbG8="', "$"),
        (b"[]", "$"),
    ],
)
def test_json_that_is_no_image_is_refused(runner: Runner, text: bytes, path: str) -> None:
    (refused,) = runner.prepare([Payload(text)])
    assert isinstance(refused, InvalidInput), refused
    assert [problem.path for problem in refused.problems] == [path]


def test_the_best_score_is_the_label(runner: Runner) -> None:
    scores = np.array([0, 0.125, 0, 0, 0, 0.25, 0, 0.5, 0.125, 0], np.float32)
    (result,) = runner.finish({"scores": scores[None]}, [None])
    assert isinstance(result, bytes)
    assert json.loads(result) == {"label": 7, "scores": scores.tolist()}

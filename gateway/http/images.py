"""The size of an image from its header: nothing is decoded, and no image library is loaded.

Formats: PNG (W3C, 11.2.2 IHDR), JPEG (ITU T.81, B.2.2 frame header), GIF (89a, 18), BMP
(BITMAPINFOHEADER) and WebP (RFC 9649). Why not a library: docs/adr/0005-image-headers.md.
"""

from __future__ import annotations

#: More segments before a JPEG's frame header are no photograph (EXIF, ICC and others need dozens).
MOST_SEGMENTS = 1000
#: Markers of a JPEG that stand alone (TEM, RSTn, SOI, EOI), that start a frame, and its pixels.
_ALONE = {0x01, *range(0xD0, 0xDA)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN, _MARK = 0xDA, 0xFF


class UnreadableHeader(ValueError):
    """The image's size cannot be told within reason; the text is for the sender."""


def pixels(content: bytes) -> int | None:
    """Return width times height of an image; None if it is of another format, or broken off.

    Raises UnreadableHeader where a decoder might find a size that is not found here.
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _product(content, 16, 4, 20, 4, "big")
    if content.startswith(b"\xff\xd8"):
        return _jpeg(content)
    if content.startswith((b"GIF87a", b"GIF89a")):
        return _product(content, 6, 2, 8, 2, "little")
    if content.startswith(b"BM"):
        size = 2 if content[14:18] == b"\x0c\0\0\0" else 4
        return _product(content, 18, size, 18 + size, size, "little", signed=size == 4)  # noqa: PLR2004
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp(content)
    return None


def _product(
    content: bytes, x: int, x_size: int, y: int, y_size: int, order: str, *, signed: bool = False
) -> int | None:
    """Multiply two whole numbers at these offsets."""
    if len(content) < y + y_size:
        return None
    wide, high = content[x : x + x_size], content[y : y + y_size]
    width = int.from_bytes(wide, order, signed=signed)  # type: ignore[arg-type]
    height = int.from_bytes(high, order, signed=signed)  # type: ignore[arg-type]
    return abs(width * height)


def _jpeg(content: bytes) -> int | None:
    """Return the largest frame before the first scan: decoders differ in which one they take."""
    found, at = None, 2
    for _ in range(MOST_SEGMENTS):
        at = content.find(_MARK, at)
        while 0 <= at < len(content) - 1 and content[at + 1] == _MARK:  # fill bytes
            at += 1
        if not 0 <= at < len(content) - 3:
            return found
        marker = content[at + 1]
        if marker in _FRAMES:
            size = _product(content, at + 7, 2, at + 5, 2, "big")
            found = max(size or 0, found or 0)
        if marker == _SCAN:
            return found
        at += 2
        if marker and marker not in _ALONE:
            at += int.from_bytes(content[at : at + 2])
    raise UnreadableHeader(f"has more than {MOST_SEGMENTS} segments before its first scan")


def _webp(content: bytes) -> int | None:
    kind = content[12:16]
    if len(content) < 30:  # noqa: PLR2004 - the shortest header of all kinds
        return None
    if kind == b"VP8 ":
        size = int.from_bytes(content[26:30], "little")
        return (size & 0x3FFF) * (size >> 16 & 0x3FFF)
    if kind == b"VP8L":
        size = int.from_bytes(content[21:25], "little")
        return ((size & 0x3FFF) + 1) * ((size >> 14 & 0x3FFF) + 1)
    size = int.from_bytes(content[24:30], "little")
    return ((size & 0xFFFFFF) + 1) * ((size >> 24) + 1)

"""A lean HTTP client for tests of ten thousand requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit


async def post_all(url: str, requests: Sequence[tuple[str, bytes]], users: int) -> list[bytes]:
    """Post JSON bodies to paths, over a connection per user; all must be answered 200."""
    place = urlsplit(url)
    answers = [b""] * len(requests)
    todo = iter(enumerate(requests))

    async def user() -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for index, (path, body) in todo:
            head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(body)}"
            writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(told.partition(b"content-length:")[2].split(b"\r\n")[0])
            answers[index] = await reader.readexactly(length)
            assert told.startswith(b"http/1.1 200"), answers[index]
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(user() for _ in range(users)))
    return answers

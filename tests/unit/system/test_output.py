"""The output of a child: bounded, its last lines kept, whatever becomes of the file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path

from gateway.system.output import MOST, Output

FLOOD = "for _ in range(30_000): print('y' * 99)\nprint('end')"
PARENT = "import subprocess; print('gone', subprocess.Popen(['sleep', '60']).pid)"


async def start(program: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def copied(process: Process, path: Path) -> Output:
    assert process.stdout
    return Output(process.stdout, path)


async def test_it_is_kept_in_a_file(tmp_path: Path) -> None:
    process = await start("print('one'); print('two'); raise SystemExit('three')")
    output = copied(process, tmp_path / "0.log")
    await process.wait()
    assert await output.last(2) == "two three"
    assert (tmp_path / "0.log").read_text() == "one\ntwo\nthree\n"


async def test_a_restart_keeps_what_was_printed_before(tmp_path: Path) -> None:
    for word in ("first", "second"):
        process = await start(f"print('{word}')")
        output = copied(process, tmp_path / "0.log")
        await process.wait()
        assert await output.last(3) == word
    assert (tmp_path / "0.log").read_text() == "first\nsecond\n"


async def test_a_flood_is_bounded(tmp_path: Path) -> None:
    process = await start(FLOOD)
    output = copied(process, tmp_path / "0.log")
    await asyncio.wait_for(process.wait(), 60)
    assert (await output.last(1)) == "end"
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]  # noqa: ASYNC240
    assert len(sizes) == 2
    assert max(sizes) < 1.2 * MOST


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    process = await start("print('told all the same')")
    output = copied(process, tmp_path / "nowhere/0.log")
    await process.wait()
    assert await output.last(1) == "told all the same"


async def test_children_that_keep_the_output_open_hold_nobody_up(tmp_path: Path) -> None:
    process = await start(PARENT)
    log = tmp_path / "0.log"
    output = copied(process, log)
    async with asyncio.timeout(20):
        while not (log.exists() and log.read_text()):
            await asyncio.sleep(0.05)
    begin = time.monotonic()
    assert (await output.last(1)).startswith("gone ")
    assert time.monotonic() - begin < 5
    child = int(log.read_text().split()[1])
    os.kill(child, signal.SIGKILL)

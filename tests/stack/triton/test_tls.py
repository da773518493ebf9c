"""TLS and mTLS to a real tritonserver: who is let in, and by which name a server is known."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.triton import launcher
from gateway.triton.channel import Tls
from gateway.triton.configs import Configs
from gateway.triton.layout import Installation
from gateway.triton.pool import TritonPool
from gateway.triton.replica import ReplicaState
from loadtests.load.service import free_port
from tests.support import tritons
from tests.support.goldens import cases
from tests.support.proxy import proxied
from tests.support.repository import copied
from tests.support.stack import serve
from tests.support.tritons import pooled, until

#: Not in the server's certificate: it is known there by its name only.
ELSEWHERE = "127.0.0.2"


def openssl(*arguments: str | Path) -> None:
    """Run openssl, quietly."""
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def authority(folder: Path, name: str) -> Path:
    """Make a CA; returns its certificate."""
    ca = folder / f"{name}.pem"
    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
    openssl("req", "-x509", *new, "-keyout", ca.with_suffix(".key"), "-out", ca)
    return ca


def signed(ca: Path, name: str, alternatives: str) -> Path:
    """Make a certificate and, beside it, its key."""
    made = ca.with_name(f"{name}.pem")
    request, extensions = made.with_suffix(".csr"), made.with_suffix(".ext")
    new = ("-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}")
    openssl("req", *new, "-keyout", made.with_suffix(".key"), "-out", request)
    extensions.write_text(f"subjectAltName={alternatives}\n")
    by = ("-CA", ca, "-CAkey", ca.with_suffix(".key"), "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", request, *by, "-extfile", extensions, "-out", made)
    return made


class Secure(NamedTuple):
    """A Triton that asks for certificates, the files to reach it, and its repository."""

    endpoint: str
    tls: Tls
    stranger: Path  # a CA that signed nothing here
    repository: Path


@pytest.fixture(scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secure]:
    """Start tritonserver as the embedded one is started, with mutual TLS on gRPC."""
    folder = tmp_path_factory.mktemp("tls")
    ca, stranger = authority(folder, "ca"), authority(folder, "stranger")
    server = signed(ca, "tritons", "IP:127.0.0.1,DNS:tritons")
    client = signed(ca, "gateway", "DNS:gateway")
    options = tritons.options(folder)
    copied(options.repository, ["tumor"])
    options.run_dir.mkdir()
    installation = await Installation.find(options.python)
    port = free_port()
    with launcher.lay_out(options, installation) as output:
        process = await asyncio.create_subprocess_exec(
            *launcher.command(options, installation, (port, free_port(), free_port())),
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={server}",
            f"--grpc-server-key={server.with_suffix('.key')}",
            f"--grpc-root-cert={ca}",
            cwd=options.run_dir,
            env=launcher.environment(options, installation),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    tls = Tls(ca, client, client.with_suffix(".key"))
    yield Secure(f"127.0.0.1:{port}", tls, stranger, options.repository)
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


async def test_calls_with_a_certificate(secure: Secure) -> None:
    async with pooled(secure.endpoint, repository=secure.repository, tls=secure.tls) as calls:
        await calls.one()


async def test_an_address_is_verified_by_the_name_that_it_was_looked_up_by(secure: Secure) -> None:
    async def look_up(host: str, port: int) -> Sequence[str]:
        return [ELSEWHERE]

    async with proxied(secure.endpoint, ELSEWHERE) as proxy:
        port = proxy.endpoint.rpartition(":")[2]
        async with pooled(
            f"dns:tritons:{port}",
            repository=secure.repository,
            tls=secure.tls,
            look_up=look_up,
        ) as calls:
            await calls.one()
        await _refused(proxy.endpoint, secure, secure.tls)  # the name is not known here


@pytest.mark.parametrize("lacking", ["TLS", "our certificate", "the server's CA"])
async def test_no_answer_without(secure: Secure, lacking: str) -> None:
    tls = {
        "TLS": None,
        "our certificate": Tls(secure.tls.ca),
        "the server's CA": secure.tls._replace(ca=secure.stranger),
    }
    await _refused(secure.endpoint, secure, tls[lacking])


async def _refused(endpoint: str, secure: Secure, tls: Tls | None) -> None:
    pool = TritonPool([endpoint], Configs(secure.repository), lambda _: {}, tls=tls)
    pool.start()
    try:
        (replica,) = pool.replicas
        await until(lambda: replica.status.state is ReplicaState.DOWN)
        await asyncio.sleep(1.0)
        assert replica.status.state is ReplicaState.DOWN
        assert replica.status.reason
    finally:
        await pool.close()


def test_the_gateway_uses_the_settings(secure: Secure, tmp_path: Path) -> None:
    ca, certificate, key = map(str, secure.tls)
    stack = serve(
        tmp_path,
        models="tumor",
        repository=str(secure.repository),
        triton=secure.endpoint,
        triton_ca=ca,
        triton_certificate=certificate,
        triton_key=key,
    )
    case = cases("tumor")[0]
    try:
        with stack.client() as client:
            answer = client.post("/tumor_single_predict", json=case.single)
        assert answer.status_code == 200
        assert case.wrong(answer.json()["output"]) is None
    finally:
        stack.interrupt()

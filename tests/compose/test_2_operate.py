"""Operating the running stack: traffic, restarts, new models, new preprocessors."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support import goldens
from tests.support.compose import ADMIN_KEY, Compose, eventually
from tests.support.repository import copied
from tests.support.stack import GATEWAY, ROOT
from tests.support.variants import replace

MODEL = "langid"
TEXTS = [case.single for case in goldens.cases(MODEL) if not case.golden.parameters]


def releases(client: httpx.Client, requests: int = 40) -> Counter[str]:
    """Count which release answers."""
    counted: Counter[str] = Counter()
    for number in range(requests):
        answer = client.post(f"/{MODEL}_single_predict", json=TEXTS[number % len(TEXTS)])
        assert answer.status_code == 200, answer.text
        counted[answer.headers["X-Release"]] += 1
    return counted


def traffic(client: httpx.Client) -> dict[str, int]:
    """Return the weights in force."""
    found: dict[str, int] = client.get(f"/models/{MODEL}").json()["traffic"]
    return found


def test_traffic_changed_inside_the_container(compose: Compose, client: httpx.Client) -> None:
    compose.execute("gateway", "gateway", "release", "traffic", MODEL, "1=100")
    eventually(lambda: releases(client, 12).keys() == {"1"})


def test_traffic_changed_by_admin_through_the_load_balancer(client: httpx.Client) -> None:
    path, body = f"/admin/models/{MODEL}/traffic", {"weights": {"2": 100}}
    assert client.post(path, json=body).status_code == 401
    answer = client.post(path, json=body, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 200, answer.text
    eventually(lambda: releases(client, 12).keys() == {"2"})


def test_traffic_survives_a_restart_of_everything(compose: Compose, client: httpx.Client) -> None:
    compose("restart")
    eventually(lambda: client.get("/readyz").status_code == 200)
    assert releases(client).keys() == {"2"}


def test_traffic_survives_a_recreated_gateway(compose: Compose, client: httpx.Client) -> None:
    before = compose.containers("gateway")
    compose.up("--force-recreate", "gateway")
    assert compose.containers("gateway") != before
    eventually(lambda: client.get("/readyz").status_code == 200)
    assert releases(client).keys() == {"2"}
    # The state is in its one folder: what was in force, for a start with a rejected declaration.
    kept = compose.execute("gateway", "cat", f"/var/lib/gateway/traffic/{MODEL}.json")
    assert kept == '{"2":100}'


def _named(folder: Path, name: str, new: str) -> Path:
    """Give a model of a copied repository another name."""
    model = (folder / name).rename(folder / new)
    replace(model / "config.pbtxt", {f'name: "{name}"': f'name: "{new}"'})
    return model


def _locked(root: Path, *options: str) -> None:
    """Lock everything in a repository, as a developer does before a deployment."""
    folders = ("repository", "preprocessors", "wheelhouse", "environments")
    given = [f"--{name}={root / name}" for name in folders]
    subprocess.run([GATEWAY, "lock", *given, *options], cwd=ROOT, check=True, capture_output=True)


def _sent(compose: Compose, root: Path, model: str) -> None:
    """Send a model to the volume: what declares it comes last, when all the rest is there."""
    names = sorted(path.name for path in (root / "repository" / model).iterdir())
    served = [name for name in names if name.isdigit() or name == "config.pbtxt"]
    files = [f"{model}/{name}" for name in (*served, "releases.lock", "releases.toml")]
    compose.send(root / "repository", files, "/models")


@pytest.fixture
def workbench(tmp_path: Path) -> Path:
    """A working copy of `tumor` with its preprocessor and contract, to change and lock."""
    copied(tmp_path / "repository", ["tumor"])
    for name in ("contract", "tumor"):
        source = ROOT / "preprocessors" / name
        subprocess.run(["cp", "-R", source, tmp_path / f"preprocessors-{name}"], check=True)
        (tmp_path / "preprocessors").mkdir(exist_ok=True)
        (tmp_path / f"preprocessors-{name}").rename(tmp_path / "preprocessors" / name)
    return tmp_path


def _rejection(client: httpx.Client, model: str) -> str:
    """Return why a model's release is rejected; empty while it is not."""
    (release,) = client.get(f"/models/{model}").json()["releases"].values()
    return str(release["reason"]) if release["state"] == "rejected" else ""


def _answers(client: httpx.Client, model: str, preprocessor: str) -> bool:
    for case in goldens.cases("tumor"):
        answer = client.post(f"/{model}_single_predict", json=case.single)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["preprocessor"] == preprocessor
        assert case.wrong(body["output"]) is None
    return True


def test_a_new_model_serves_without_a_restart(
    compose: Compose, client: httpx.Client, workbench: Path
) -> None:
    """Its environment is there already: it is locked to what `tumor` is locked to."""
    before = [item["State"]["StartedAt"] for item in compose.inspect()]
    _named(workbench / "repository", "tumor", "lesion")
    _locked(workbench, "--relock=1")
    _sent(compose, workbench, "lesion")
    eventually(lambda: _answers(client, "lesion", "tumor-preprocessor==1.0.0"))
    listed = compose.execute("gateway", "gateway", "environments", "list")
    (used,) = (line for line in listed.splitlines() if "lesion/1" in line)
    assert "tumor/1" in used
    assert [item["State"]["StartedAt"] for item in compose.inspect()] == before


def test_a_new_preprocessor_is_installed_from_the_wheelhouse_without_a_network(
    compose: Compose, client: httpx.Client, workbench: Path
) -> None:
    before = [item["State"]["StartedAt"] for item in compose.inspect()]
    project = workbench / "preprocessors/tumor/pyproject.toml"
    replace(project, {'version = "1.0.0"': 'version = "1.1.0"'})
    model = _named(workbench / "repository", "tumor", "growth")
    replace(model / "releases.toml", {"tumor-preprocessor==1.0.0": "tumor-preprocessor==1.1.0"})
    (model / "releases.lock").unlink()
    _locked(workbench)
    folders = ("repository", "wheelhouse", "environments")
    given = [f"--{name}={workbench / name}" for name in folders]
    build = [GATEWAY, "environments", "build", "--complete-wheelhouse", *given]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)

    _sent(compose, workbench, "growth")
    told = eventually(lambda: _rejection(client, "growth"), seconds=60)
    assert "wheelhouse" in told  # nothing is fetched, and the reason says what to do
    wheels = [path.name for path in (workbench / "wheelhouse").glob("*.whl")]
    compose.send(workbench / "wheelhouse", wheels, "/wheelhouse")
    eventually(lambda: _answers(client, "growth", "tumor-preprocessor==1.1.0"))
    assert [item["State"]["StartedAt"] for item in compose.inspect()] == before

"""Tests of infra/compose.yaml: its schema, its references, and the variables of team mode."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import infra
from tests.support.infra import INFRA, ROOT
from vqbet.team import entry, objects
from vqbet.team.place import Place
from vqbet.team.settings import PORTS, SECRETS, Settings

COMPOSE = INFRA / "compose.yaml"
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?:(:\?|:-)[^}]*)?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    (found,) = infra.documents(COMPOSE)
    return found


@pytest.mark.slow
def test_the_schema_of_compose_accepts_it(checkers: Path, tmp_path: Path) -> None:
    check = [checkers / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert infra.run(*check, COMPOSE).returncode == 0
    faulty = tmp_path / "compose.yaml"
    faulty.write_text(COMPOSE.read_text("utf-8").replace("restart: unless-stopped", "restarts: unless-stopped", 1))
    assert "restarts" in infra.run(*check, faulty).stdout


def test_every_variable_is_one_that_the_secrets_hold(tmp_path: Path) -> None:
    script, file = INFRA / "docker" / "secrets.sh", tmp_path / "made" / "compose.env"
    subprocess.run(["bash", str(script), str(file)], check=True, capture_output=True, timeout=60)
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    written = dict(line.split("=", 1) for line in first.splitlines())
    used = {found[1]: found[2] for found in VARIABLE.finditer(COMPOSE.read_text("utf-8"))}
    assert used.keys() == written.keys()
    assert all(form == ":?" for name, form in used.items() if name.startswith("SECRET_")), "no password by default"
    secrets = [value for name, value in written.items() if name.startswith("SECRET_")]
    assert len(set(secrets)) == len(secrets)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in secrets)
    subprocess.run(["bash", str(script), str(file)], check=True, capture_output=True, timeout=60)
    assert file.read_text() == first, "passwords that are there stay"


def test_every_reference_exists(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other], (name, other)
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source == "..", (name, volume)
    addressed = re.findall("[@/]([a-z]+):[0-9]{4}", str(services))
    assert set(addressed) == {"database", "storage", "prefect", "mlflow"}


def test_images_are_those_of_the_dockerfile(compose: dict[str, Any]) -> None:
    stages = infra.dockerfile((INFRA / "docker" / "Dockerfile").read_text("utf-8"))
    images = {service["image"] for service in compose["services"].values()}
    assert {image.removeprefix("vqbet-") for image in images if image.startswith("vqbet-")} <= set(stages)
    assert {image for image in images if not image.startswith("vqbet-")} == {"postgres:17"}


def test_ports_listen_on_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_worker_has_the_variables_of_team_mode(compose: dict[str, Any]) -> None:
    """The mode is chosen by environment only, so a container gets what a shell of the team sources."""
    settings = Settings(dict.fromkeys(PORTS, 1), dict.fromkeys(SECRETS, "x"))
    expected = entry.variables(Place(ROOT / "team", ROOT), settings)
    for name in ("worker-cpu", "worker-gpu"):
        given = compose["services"][name]["environment"]
        assert expected.keys() <= given.keys()
        assert {given[each] for each in ("VQBET_STORAGE", "VQBET_DATA")} == {
            expected[each] for each in ("VQBET_STORAGE", "VQBET_DATA")
        }


def test_servers_have_passwords_and_no_telemetry(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert "PREFECT_SERVER_API_AUTH_STRING" in services["prefect"]["environment"]
    assert services["prefect"]["environment"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert services["mlflow"]["command"][-2:] == ["--app-name", "basic-auth"]
    assert "-master.telemetry=false" in services["storage"]["command"]
    buckets = str(services["buckets"]["command"])
    assert all(name in buckets for name in (objects.DATA, objects.MLFLOW, objects.EVIDENCE))


def test_a_worker_that_is_stopped_has_time_for_its_checkpoint(compose: dict[str, Any]) -> None:
    for name in ("worker-cpu", "worker-gpu"):
        service = compose["services"][name]
        assert service["stop_grace_period"] == "2m"
        assert service["init"] is True
        assert service["shm_size"] == "4gb"

"""Tests of infra/k8s: strict schemas, every reference, and the manifest of a run's job."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support import infra
from tests.support.infra import INFRA, ROOT
from vqbet.environment import SILENCE

K8S = INFRA / "k8s"
TEMPLATE = K8S / "kubernetes-job-template.json"
SECRETS = ("vqbet-team", "vqbet-servers")
GUIDE = ROOT / "docs" / "gpu-nodes.md"


def template() -> dict[str, Any]:
    return json.loads(TEMPLATE.read_text("utf-8"))


def rendered(**given: Any) -> dict[str, Any]:
    """Return the manifest of a job, by plain substitution of defaults and `given`, with what the worker fills in."""
    whole = template()
    values = {name: each.get("default") for name, each in whole["variables"]["properties"].items()} | given

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(each) for name, each in value.items()}
        if isinstance(value, list):
            return [fill(each) for each in value]
        if isinstance(value, str) and (found := re.fullmatch(r"\{\{ (\w+) \}\}", value)):
            return values[found[1]]
        return (
            re.sub(r"\{\{ (\w+) \}\}", lambda found: str(values[found[1]]), value) if isinstance(value, str) else value
        )

    manifest: dict[str, Any] = fill(whole["job_configuration"]["job_manifest"])
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    container["args"] = container["args"].split()
    manifest["metadata"]["name"] = "run"  # kubernetes-validate stumbles over an object with generateName alone
    return manifest


@pytest.fixture(scope="module")
def objects(checkers: Path) -> list[dict[str, Any]]:
    """Return what `kubectl apply --kustomize infra/k8s` would send."""
    done = infra.run(checkers / "kubectl", "kustomize", K8S)
    assert done.returncode == 0, done.stderr
    return list(YAML(typ="safe", pure=True).load_all(done.stdout))


def strictly(checkers: Path, found: list[dict[str, Any]], folder: Path) -> str:
    """Return what the strict check of Kubernetes' schemas refuses."""
    path = folder / "objects.json"
    said = []
    for each in found:
        path.write_text(json.dumps(each))
        done = infra.run(checkers / "kubernetes-validate", "--strict", path)
        if done.returncode:
            said.append(done.stdout + done.stderr)
    return "\n".join(said)


@pytest.mark.slow
def test_every_object_is_strictly_valid(checkers: Path, objects: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("\n---\n".join(map(json.dumps, objects)))
    done = infra.run(checkers / "kubernetes-validate", "--strict", tmp_path / "all.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(objects) == 17


@pytest.mark.slow
def test_the_job_is_strictly_valid_and_a_misspelled_field_is_not(checkers: Path, tmp_path: Path) -> None:
    job = rendered(name="nightly", env={"PREFECT__FLOW_RUN_ID": "1"})
    assert strictly(checkers, [job], tmp_path) == ""
    faulty = copy.deepcopy(job)
    faulty["spec"]["template"]["spec"]["terminationGracePeriod"] = 120
    assert "terminationGracePeriod" in strictly(checkers, [faulty], tmp_path)
    faulty = copy.deepcopy(job)
    faulty["spec"]["template"]["spec"]["completions"] = 1  # as in the default of prefect-kubernetes 0.8
    assert "completions" in strictly(checkers, [faulty], tmp_path)


def test_the_job_has_what_a_training_on_a_gpu_needs() -> None:
    job = rendered(name="nightly", gpus=4, grace_s=90, shared_memory="16Gi")
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert spec["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert spec["terminationGracePeriodSeconds"] == 90
    assert (job["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never"), "Prefect retries, Kubernetes does not"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    assert [*container["command"], *container["args"]] == ["/usr/bin/env", "python3", "-m", "vqbet.team.run"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["volumes"]}


def test_every_placeholder_is_a_variable_and_every_variable_is_used() -> None:
    whole = template()
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(whole["job_configuration"])))
    assert used == whole["variables"]["properties"].keys()


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield rendered(name="nightly")["spec"]["template"]["spec"]
    yield from (each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment")


@pytest.mark.slow
def test_every_reference_exists(objects: list[dict[str, Any]]) -> None:
    named = {(each["kind"], each["metadata"]["name"]) for each in objects} | {("Secret", name) for name in SECRETS}
    referred: set[tuple[str, str]] = set()
    for pod in pods(objects):
        referred.add(("ServiceAccount", pod["serviceAccountName"]))
        if "priorityClassName" in pod:
            referred.add(("PriorityClass", pod["priorityClassName"]))
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                referred.add(("ConfigMap", volume["configMap"]["name"]))
            if "secret" in volume:
                referred.add(("Secret", volume["secret"]["secretName"]))
            if claim := volume.get("persistentVolumeClaim"):
                referred.add(("PersistentVolumeClaim", claim["claimName"]))
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                for kind, name in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                    if name in source:
                        referred.add((kind, source[name]["name"]))
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    referred.add(("Secret", variable["valueFrom"]["secretKeyRef"]["name"]))
    assert referred <= named
    assert len(referred) == 9
    for binding in (each for each in objects if each["kind"] == "RoleBinding"):
        assert ("Role", binding["roleRef"]["name"]) in named
        assert all((each["kind"], each["name"]) in named for each in binding["subjects"])


@pytest.mark.slow
def test_services_reach_ports_of_pods(objects: list[dict[str, Any]]) -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "Service"}
    deployments = {
        each["metadata"]["name"]: each["spec"]["template"] for each in objects if each["kind"] == "Deployment"
    }
    (team,) = (each["data"] for each in objects if each["metadata"]["name"] == "vqbet-team")
    for name, service in services.items():
        assert service["selector"].items() <= deployments[name]["metadata"]["labels"].items()
        (container,), (port,) = deployments[name]["spec"]["containers"], service["ports"]
        assert {"name": port["targetPort"], "containerPort": port["port"]} in container["ports"]
        assert str(port["port"]) in container["args"]
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        host, port = re.fullmatch(r"http://([a-z]+):(\d+)(?:/api)?", team[variable]).groups()  # type: ignore[union-attr]
        assert services[host]["ports"][0]["port"] == int(port)
    assert team["DO_NOT_TRACK"] == SILENCE["DO_NOT_TRACK"]


@pytest.mark.slow
def test_no_secret_is_in_a_file_and_the_guide_makes_each_key(objects: list[dict[str, Any]]) -> None:
    assert not [each for each in objects if each["kind"] == "Secret"]
    guide = GUIDE.read_text("utf-8")
    keys = {"auth.ini"}
    for pod in pods(objects):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    keys.add(variable["valueFrom"]["secretKeyRef"]["key"])
                assert (
                    not re.search("PASSWORD$|SERVER_SECRET_KEY$|AUTH_STRING$", variable["name"])
                    or "valueFrom" in variable
                )
    keys |= {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD", "VQBET_LEDGER", "VQBET_REPOSITORY"}
    assert len(keys) == 10
    assert not [key for key in keys if f"{key}=" not in guide]
    assert all(name in guide for name in SECRETS)


@pytest.mark.slow
def test_no_pod_runs_as_root_or_reads_the_api_without_need(objects: list[dict[str, Any]]) -> None:
    accounts = {each["metadata"]["name"]: each for each in objects if each["kind"] == "ServiceAccount"}
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        account = accounts[pod["serviceAccountName"]]
        assert pod["serviceAccountName"] == "vqbet-worker" or account["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }

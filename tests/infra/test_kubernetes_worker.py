"""Tests of Prefect's Kubernetes worker against a fake of the Kubernetes API: what is sent is what our template says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import cluster, foreign
from tests.support.infra import INFRA, ROOT
from tests.support.once import once

TEMPLATE = INFRA / "k8s" / "kubernetes-job-template.json"
LOCK = INFRA / "docker" / "kubernetes.lock"
RUN = "0198c1a0-0000-7000-8000-000000000001"

# Runs where prefect-kubernetes is: prepares one run as the worker of a pool does, and starts it.
DRIVER = """
import asyncio, json, sys, uuid
from pathlib import Path
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

address, template, values, verb, run_id = sys.argv[1:]
template, values = json.loads(Path(template).read_text()), json.loads(values)
kube = {"apiVersion": "v1", "kind": "Config", "current-context": "fake", "users": [{"name": "nobody", "user": {}}],
        "clusters": [{"name": "fake", "cluster": {"server": address}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}]}
values["cluster_config"] = {"config": kube, "context_name": "fake"}

async def main():
    run = FlowRun(id=uuid.UUID(run_id), flow_id=uuid.uuid4(), name="brave-otter")
    configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(template, values)
    configuration.prepare_for_flow_run(run)
    worker = KubernetesWorker(work_pool_name="gpu")
    if verb == "start":
        result = await worker.run(run, configuration)
        print(result.identifier)
    else:
        await worker.kill_infrastructure(verb, configuration)
        print("deleted")

asyncio.run(main())
"""


def install(folder: Path) -> None:
    """Make an environment of the project's packages with what the lock of Kubernetes adds, each by its hash."""
    foreign.install(folder, "prefect-kubernetes", ["--no-deps", "--require-hashes", "-r", str(LOCK)], timeout_s=300)
    inside = folder / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (inside / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that drives the worker: address of the API, values of the pool, verb."""
    folder = once(tmp_path_factory, "kubernetes", install)

    def driven(address: str, values: dict[str, Any], verb: str = "start") -> subprocess.CompletedProcess[str]:
        words = [
            str(folder / "env" / "bin" / "python"),
            "-c",
            DRIVER,
            address,
            str(TEMPLATE),
            json.dumps(values),
            verb,
            RUN,
        ]
        environment = {
            **os.environ,
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_AUTH_STRING": "vqbet:never-in-a-manifest",
            "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME": "vqbet-team",
            "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY": "PREFECT_API_AUTH_STRING",
            "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_CREATE_JOB_RETRY_DELAY_SECONDS": "0",
        }
        return subprocess.run(
            words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
        )

    return driven


@pytest.mark.slow
def test_what_is_sent_is_what_the_template_says(drive: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    with cluster.serving() as fake:
        done = drive(fake.address, {"gpus": 2, "env": {"VQBET_PROCESSES": "2"}, "command": "python -m vqbet.team.run"})
        assert done.returncode == 0, done.stderr
        (job,) = fake.jobs.values()
        assert done.stdout.strip() == f"vqbet:{job['metadata']['name']}"
        assert ("POST", "/apis/batch/v1/namespaces/vqbet/jobs") in fake.asked
        wanted = json.loads(TEMPLATE.read_text("utf-8"))["job_configuration"]["job_manifest"]["spec"]
        spec = job["spec"]["template"]["spec"]
        (container,), (template,) = spec["containers"], wanted["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": 2}
        for name in ("tolerations", "nodeSelector", "securityContext", "priorityClassName", "restartPolicy"):
            assert spec[name] == wanted["template"]["spec"][name]
        assert spec["volumes"][0] == {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
        assert spec["terminationGracePeriodSeconds"] == 120
        assert [*container["command"], *container["args"]] == ["/usr/bin/env", "python", "-m", "vqbet.team.run"]
        for name in ("volumeMounts", "envFrom", "securityContext"):
            assert container[name] == template[name]
        env = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
        assert (env["PREFECT__FLOW_RUN_ID"], env["VQBET_PROCESSES"]) == (RUN, "2")
        assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
        assert env["PREFECT_API_AUTH_STRING"] == {
            "secretKeyRef": {"name": "vqbet-team", "key": "PREFECT_API_AUTH_STRING"}
        }
        assert "never-in-a-manifest" not in json.dumps(job)


@pytest.mark.slow
def test_a_refused_creation_is_tried_again_and_a_job_is_deleted_once(
    drive: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with cluster.serving() as fake:
        fake.failures = [503]
        done = drive(fake.address, {})
        assert done.returncode == 0, done.stderr
        assert fake.asked.count(("POST", "/apis/batch/v1/namespaces/vqbet/jobs")) == 2
        assert len(fake.jobs) == len(fake.pods) == 1
        assert drive(fake.address, {}, done.stdout.strip()).stdout.strip() == "deleted"
        assert not fake.jobs
        again = drive(fake.address, {}, done.stdout.strip())
        assert again.returncode != 0
        assert "not found in namespace 'vqbet'" in again.stderr

"""Tests of infra/terraform: it parses, every reference is declared, and no secret stands in it.

A provider cannot be downloaded everywhere, so that `terraform validate` is no part of this.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import infra
from tests.support.infra import INFRA

FOLDER = INFRA / "terraform"
PARSE = """
import json, sys
from pathlib import Path
import hcl2
print(json.dumps({path: hcl2.loads(Path(path).read_text()) for path in sys.argv[1:]}, default=str))
"""
REFERENCE = re.compile(r"\b(?:(var|local)\.(\w+)|(data\.)?((?:aws|random)_\w+)\.(\w+))")
SECRET = re.compile(r"AKIA[0-9A-Z]{16}|(?:password|secret|token|access_key)\s*=\s*\"", re.IGNORECASE)
WILDCARD = re.compile(r"\"(?:\*|[a-z0-9]+:\*)\"")


def bare(name: str) -> str:
    """Return a name without the quotes that python-hcl2 keeps."""
    return name.strip('"')


def parsed(checkers: Path, *files: Path) -> list[dict[str, Any]]:
    """Return the content of the files. Fails where one cannot be parsed."""
    done = infra.run(checkers / "python", "-c", PARSE, *files)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout).values())


def declared(modules: list[dict[str, Any]]) -> set[str]:
    """Return the addresses of everything that the modules declare."""
    found: set[str] = set()
    for module in modules:
        found |= {f"var.{bare(name)}" for block in module.get("variable", []) for name in block}
        for block in module.get("locals", []):
            found |= {f"local.{bare(name)}" for name in block if not name.startswith("__")}
        for kind, prefix in (("resource", ""), ("data", "data.")):
            for block in module.get(kind, []):
                for type_, named in block.items():
                    found |= {f"{prefix}{bare(type_)}.{bare(name)}" for name in named if not name.startswith("__")}
    return found


def referred(text: str) -> set[str]:
    """Return the addresses that a text refers to, outside of comments."""
    text = re.sub(r"#.*", "", text)
    return {
        f"{found[1]}.{found[2]}" if found[1] else f"{found[3] or ''}{found[4]}.{found[5]}"
        for found in REFERENCE.finditer(text)
    }


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return sorted(FOLDER.glob("*.tf"))


@pytest.mark.slow
def test_every_reference_is_declared_and_every_variable_is_used(checkers: Path, files: list[Path]) -> None:
    known = declared(parsed(checkers, *files))
    wanted = set().union(*(referred(path.read_text("utf-8")) for path in files))
    assert wanted <= known
    assert {each for each in known if each.startswith(("var.", "local."))} <= wanted
    for kind in ("aws_s3_bucket", "aws_db_instance", "aws_eks_cluster", "aws_eks_node_group", "aws_iam_role"):
        assert [each for each in known if each.startswith(f"{kind}.")], kind


@pytest.mark.slow
def test_a_reference_to_nothing_and_a_broken_file_are_seen(checkers: Path, tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.tf"
    faulty.write_text('resource "aws_s3_bucket" "a" {\n  bucket = "${var.nam}-${aws_s3_bucket.b.id}"\n}\n')
    known = declared(parsed(checkers, faulty))
    assert known == {"aws_s3_bucket.a"}
    assert referred(faulty.read_text()) - known == {"var.nam", "aws_s3_bucket.b"}
    faulty.write_text('resource "aws_s3_bucket" "a" {\n  bucket = \n}\n')
    assert infra.run(checkers / "python", "-c", PARSE, faulty).returncode != 0


def test_no_secret_and_no_wildcard_of_rights(files: list[Path]) -> None:
    assert SECRET.search('  password = "x"')
    assert WILDCARD.search('actions = ["s3:*"]')
    for path in files:
        text = path.read_text("utf-8")
        assert not SECRET.search(text), path
        assert not WILDCARD.search(text), path


def test_evidence_is_locked_and_nothing_is_public(files: list[Path]) -> None:
    text = "\n".join(path.read_text("utf-8") for path in files)
    for wanted in (
        'object_lock_enabled = each.key == "evidence"',
        'status = "Enabled"',
        'mode = "COMPLIANCE"',
        "restrict_public_buckets = true",
        "publicly_accessible         = false",
        "storage_encrypted           = true",
        "manage_master_user_password = true",
        "endpoint_public_access  = false",
    ):
        assert wanted in text, wanted
    evidence = re.search(r'statement \{[^}]*"evidence"\]', text[text.index('"run" {') :])
    deleting = [block for block in re.findall(r"statement \{.*?\n  \}", text, re.S) if "DeleteObject" in block]
    assert evidence is not None
    assert deleting
    assert not [block for block in deleting if "evidence" in block]


def test_nodes_have_the_label_and_the_taint_of_the_job_template(files: list[Path]) -> None:
    template = json.loads((INFRA / "k8s" / "kubernetes-job-template.json").read_text("utf-8"))
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    text = (FOLDER / "cluster.tf").read_text("utf-8")
    gpu = text[text.index('"aws_eks_node_group" "gpu"') :]
    ((label, value),) = pod["nodeSelector"].items()
    assert f'labels          = {{ "{label}" = "{value}" }}' in gpu
    (toleration,) = pod["tolerations"]
    assert f'key    = "{toleration["key"]}"' in gpu
    accounts = (INFRA / "k8s" / "access.yaml").read_text("utf-8")
    for name in re.findall(r"^    (vqbet-\w+) +=", (FOLDER / "roles.tf").read_text("utf-8"), re.M):
        assert f"metadata: {{name: {name}}}" in accounts


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform comes from no package index")
def test_the_files_are_as_terraform_formats_them() -> None:
    done = infra.run(Path(shutil.which("terraform") or ""), "fmt", "-check", FOLDER)
    assert (done.returncode, done.stdout) == (0, "")

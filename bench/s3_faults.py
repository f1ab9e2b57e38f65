"""Calls to the S3 server of `vqbet team up` while it is killed and started again: each is survived, and whole.

    python -m bench.s3_faults

DVC's transfers begin before kill -9, all others after it. Prints the seconds that each call took.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.real_servers import started

DATA = os.urandom(20 * 2**20)
DIGEST = hashlib.sha256(DATA).hexdigest()


def clone(folder: Path) -> Path:
    """A project with one small version of data/, whose remote is on the server."""
    from vqbet import versions
    from vqbet.team import objects, run

    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    (folder / "data").mkdir()
    for number in range(20):
        (folder / "data" / str(number)).write_bytes(os.urandom(1000 + number))
    run.remote(folder, f"s3://{objects.DATA}/{folder.name}")
    versions.add(folder)
    return folder


def calls(home: Path) -> dict[str, Callable[[], bool]]:
    """Return calls by name; each returns whether what it made is whole."""
    from vqbet import storage, versions
    from vqbet.storage import shared
    from vqbet.team import objects

    bucket = storage.Bucket.at(f"s3://{objects.EVIDENCE}/faults")
    policy = home / "policy"
    policy.mkdir()
    (policy / "bundle.json").write_bytes(DATA)
    pushed, pulled = clone(home / "pushed"), clone(home / "pulled")
    versions.push(pulled)
    shared.put(bucket, DIGEST, policy)
    bucket.create("there", DATA)

    def parts() -> bool:
        bucket.object("large").put(DATA)
        return bucket.read("large") == DATA

    def link() -> bool:
        shared.fetch(shared.link(bucket, DIGEST, hours=1), home / "robot")
        return (home / "robot" / "bundle.json").read_bytes() == DATA

    def push() -> bool:
        versions.push(pushed)
        return versions.audit(pushed).files == 20

    def pull() -> bool:
        shutil.rmtree(pulled / "data")
        shutil.rmtree(pulled / ".dvc" / "cache")
        versions.pull(pulled, "none", [])
        return len(list((pulled / "data").iterdir())) == 20

    return {
        "read": lambda: bucket.read("there") == DATA,
        "keys": lambda: "there" in bucket.keys(""),
        "create": lambda: bucket.create("new", b"x") and not bucket.create("new", b"y") and bucket.read("new") == b"x",
        "parts": parts,
        "bundle by link": link,
        "dvc push, audit": push,
        "dvc pull": pull,
    }


def timed(name: str, call: Callable[[], bool], wait_s: float, wrong: list[str]) -> None:
    time.sleep(wait_s)
    began = time.monotonic()
    try:
        said = "whole" if call() else "NOT WHOLE"
    except Exception as error:  # whatever it is, it is counted and shown
        said = f"{type(error).__name__}: {error}"
    if said != "whole":
        wrong.append(name)
    print(f"{name:<18}{time.monotonic() - began:6.1f} s  {said}", flush=True)


def main() -> None:
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, started(["s3"]) as servers:
        os.environ["PYTHONPATH"] = os.getcwd()
        todo = calls(Path(folder))
        threads = [
            threading.Thread(target=timed, args=(name, call, 0.05 * number, wrong))
            for number, (name, call) in enumerate(todo.items())
        ]
        threads[-2].start()  # a push and a pull have begun when the server dies
        threads[-1].start()
        time.sleep(1.5)
        servers.kill("s3")
        for thread in threads[:-2]:
            thread.start()
        print(f"server away for {servers.start('s3'):.1f} s", flush=True)
        for thread in threads:
            thread.join()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

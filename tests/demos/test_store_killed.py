"""A writer killed with SIGKILL: the old store or the new one, whole, at every moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a process of its own that never uses zarr itself, so that it may fork: each child writes or reads once.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import zarr, zarr.codecs, zarr.storage, zarr.buffer.cpu
from vqbet.demos import store
from vqbet.files import atomic
from tests.support.synthetic import synthetic

os.fsync = lambda descriptor: None  # a process that dies loses nothing that it gave to the kernel
path = Path(sys.argv[1]) / "demo.zarr"
versions = [synthetic(3, seed=1), synthetic(5, seed=2)]
random.seed(0)

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            code = work()
        except BaseException:
            import traceback; traceback.print_exc()
            code = 99
        os._exit(code)
    return pid

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

exchange = atomic._exchange

def write(version, calls_to=(), die_at=None):
    atomic._exchange = (lambda *folders: False) if calls_to == ("rename",) else exchange  # in two steps, else in one
    calls = 0
    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    for name in calls_to:
        setattr(os, name, counted(getattr(os, name)))
    store.write(path, versions[version])
    return 0

def version():
    found = store.read(path).observation.tobytes()
    return [one.observation.tobytes() for one in versions].index(found)

assert wait(child(lambda: write(0))) == 0
held, moments, swapped = 0, 0, 0
for calls_to, stride in ((("rename",), 1), (("fsync", "mkdir", "rmdir", "unlink"), 7), (("fsync",), 1)):
    for moment in range(1, 1000, stride):  # die at one call to the system, at a later one, ... until a write survives
        died = wait(child(lambda: write(1 - held, calls_to, moment)))
        now = wait(child(version))
        assert now in (0, 1), (calls_to, moment, now)
        swapped += died != 0 and now != held
        moments, held = moments + 1, now
        if died == 0:
            break
start = time.perf_counter()
assert wait(child(lambda: write(1 - held))) == 0
held, needed_s = 1 - held, time.perf_counter() - start
killed, tries = 0, 0
while killed < 10 and tries < 100:  # and at random moments
    pid = child(lambda: write(1 - held))
    time.sleep(random.uniform(0, needed_s))
    os.kill(pid, signal.SIGKILL)
    died, tries = wait(pid) != 0, tries + 1
    killed, needed_s = killed + died, needed_s * (1.0 if died else 0.9)  # it was busier when this was measured
    held = wait(child(version))
    assert held in (0, 1), held
assert wait(child(lambda: write(0))) == 0
print(json.dumps({"moments": moments, "swapped": swapped, "killed": killed, "left": sorted(os.listdir(path.parent))}))
"""


@pytest.mark.slow
def test_a_killed_writer_never_leaves_half_a_store(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert seen["moments"] > 20  # both renames, around the exchange; files, folders and removals by turns
    assert seen["swapped"] > 0  # killed before and after the moment at which the new store takes over
    assert seen["killed"] == 10
    assert seen["left"] == ["demo.zarr"]

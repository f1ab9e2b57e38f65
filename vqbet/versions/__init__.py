"""Interface to DVC: present and past versions of data/, audit of the remote's copy, and single stages of the graph.

DVC runs as a child of this interpreter in its own process group, so that nothing it started outlives it.
"""

from vqbet.versions import tags
from vqbet.versions.cached import cached_folders
from vqbet.versions.data import DataVersion, add, data_version, push, read, stores
from vqbet.versions.exchange import advance, commit, give, pull, shown
from vqbet.versions.git import as_committed, committed, dirty, git_commit, tracked
from vqbet.versions.graph import unmade
from vqbet.versions.past import restore
from vqbet.versions.process import Killed, changed, dvc, repro
from vqbet.versions.readers import alone, busy
from vqbet.versions.remote import Audit, audit
from vqbet.versions.streamed import Streamed

__all__ = [
    "Audit",
    "DataVersion",
    "Killed",
    "Streamed",
    "add",
    "advance",
    "alone",
    "as_committed",
    "audit",
    "busy",
    "cached_folders",
    "changed",
    "commit",
    "committed",
    "data_version",
    "dirty",
    "dvc",
    "git_commit",
    "give",
    "pull",
    "push",
    "read",
    "repro",
    "restore",
    "shown",
    "stores",
    "tags",
    "tracked",
    "unmade",
]

"""Interface to MLflow: runs with curves, registered models without pickle, and a champion alias guarded by a ledger.

MLFLOW_TRACKING_URI names the store: an SQLite file (embedded) or a server (team). The code is the same for both.
MLflow is imported inside functions because the import takes seconds.
"""

from vqbet.registry.approvals import Approval, approve, approved_then
from vqbet.registry.approvals import examined as examined_approvals
from vqbet.registry.attachments import attach, fetch, keep
from vqbet.registry.attempts import Attempt, Attempts
from vqbet.registry.bereft import refuse_without_ledger
from vqbet.registry.canaries import FAILED, PASSED, WAIVED, Canaries, Canary, released
from vqbet.registry.chain import OvertakenError, signed_by
from vqbet.registry.connection import check, empty, shown
from vqbet.registry.description import show
from vqbet.registry.files import complete, download, size
from vqbet.registry.heads import Head, head, length, misses, unsigned
from vqbet.registry.ledger import LedgerEntry, signers
from vqbet.registry.ledger import examined as examined_ledger
from vqbet.registry.models import (
    CANDIDATE,
    CHAMPION,
    Signature,
    Version,
    by_digest,
    register,
    set_candidate,
)
from vqbet.registry.promotion import (
    admit,
    amiss,
    champion,
    force,
    history,
    predecessor,
    promote,
    repair,
    resolve,
    rollback,
)
from vqbet.registry.runs import Run, abandoned, end, gpu_hours, run, trainers
from vqbet.registry.seals import UNSIGNED, may

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "FAILED",
    "PASSED",
    "UNSIGNED",
    "WAIVED",
    "Approval",
    "Attempt",
    "Attempts",
    "Canaries",
    "Canary",
    "Head",
    "LedgerEntry",
    "OvertakenError",
    "Run",
    "Signature",
    "Version",
    "abandoned",
    "admit",
    "amiss",
    "approve",
    "approved_then",
    "attach",
    "by_digest",
    "champion",
    "check",
    "complete",
    "download",
    "empty",
    "end",
    "examined_approvals",
    "examined_ledger",
    "fetch",
    "force",
    "gpu_hours",
    "head",
    "history",
    "keep",
    "length",
    "may",
    "misses",
    "predecessor",
    "promote",
    "refuse_without_ledger",
    "register",
    "released",
    "repair",
    "resolve",
    "rollback",
    "run",
    "set_candidate",
    "show",
    "shown",
    "signed_by",
    "signers",
    "size",
    "trainers",
    "unsigned",
]

"""MLflow behind one door: runs with curves, registered models without pickle, and the alias that moves under a ledger.

The store is the one MLFLOW_TRACKING_URI names: an SQLite file (embedded) or a server (team); the code is the same.
MLflow itself is imported inside functions, for it costs seconds.
"""

from vqbet.registry.approvals import Approval, approve, approved_then
from vqbet.registry.approvals import examined as examined_approvals
from vqbet.registry.chain import signed_by
from vqbet.registry.connection import check, empty
from vqbet.registry.evidence import fetch, keep
from vqbet.registry.heads import Head, head, length, misses, unsigned
from vqbet.registry.ledger import LedgerEntry, signers
from vqbet.registry.ledger import examined as examined_ledger
from vqbet.registry.models import (
    CANDIDATE,
    CHAMPION,
    Signature,
    Version,
    champion,
    download,
    register,
    resolve,
    set_candidate,
)
from vqbet.registry.promotion import amiss, force, history, predecessor, promote, repair, rollback
from vqbet.registry.runs import Run, abandoned, end, run, trainers
from vqbet.registry.seals import UNSIGNED, may
from vqbet.registry.summary import show

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "UNSIGNED",
    "Approval",
    "Head",
    "LedgerEntry",
    "Run",
    "Signature",
    "Version",
    "abandoned",
    "amiss",
    "approve",
    "approved_then",
    "champion",
    "check",
    "download",
    "empty",
    "end",
    "examined_approvals",
    "examined_ledger",
    "fetch",
    "force",
    "head",
    "history",
    "keep",
    "length",
    "may",
    "misses",
    "predecessor",
    "promote",
    "register",
    "repair",
    "resolve",
    "rollback",
    "run",
    "set_candidate",
    "show",
    "signed_by",
    "signers",
    "trainers",
    "unsigned",
]

"""The desk's orders to the policy server, and its proofs. A refusal says nothing of the policy that was ordered."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from vqbet.contract import ServingError
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import Trial
from vqbet.evaluation.trials.trial_proofs import expect_statement
from vqbet.serving.trial_line import Arms, SignedStatement

HEX = re.compile("[0-9a-f]{12,}")  # digests, and beginnings of them


class ServerLine(Protocol):
    """The part of `trial_line.TrialLine` that a desk calls."""

    def arms(self) -> Arms: ...

    def arm(self, *, plan: str, trial: str, robot: str, nonce: str, digest: str, key: str) -> SignedStatement: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Lines:
    """Two connections to the policy server: for orders, and to see whether it is there. url: for the robot."""

    url: str
    orders: ServerLine
    watch: ServerLine

    def close(self) -> None:
        self.orders.close()
        self.watch.close()


def ordered(plan: TrialPlan, blinding: Blinding, trial: Trial, line: ServerLine) -> dict[str, Any]:
    """Order a trial at the server, and return nonce, statement and signature, verified.

    The server must have the policies of all arms: one that lacks an arm would refuse that arm's trials only, and tell
    the operator which they are. Raises ServingError, which names no policy, and GateError for a wrong statement.
    """
    nonce = secrets.token_hex(16)
    with veiled(plan):
        if said := unfit(plan, line.arms()):
            raise ServingError(said)
        signed = line.arm(
            plan=plan.sha256,
            trial=trial.code,
            robot=plan.robot,
            nonce=nonce,
            digest=plan.arms[trial.slot.arm],
            key=blinding.key(trial.code),
        )
    proof = {"nonce": nonce, "statement": signed.statement.to_json(), "signature": signed.signature}
    expect_statement(plan, blinding, trial, proof)
    return proof


@contextmanager
def veiled(plan: TrialPlan) -> Iterator[None]:
    """Take digests and other secrets out of the sentences of a server: they are shown to the operator."""
    try:
        yield
    except ServingError as error:
        sentence = HEX.sub(lambda found: found[0] if plan.sha256.startswith(found[0]) else "...", str(error))
        raise ServingError(sentence) from None


def unfit(plan: TrialPlan, arms: Arms) -> str:
    """Return why a server with these arms cannot serve a plan of trials; "" where it can."""
    if arms.plan != plan.sha256:
        return f"the server serves plan {arms.plan[:12]}, this is {plan.sha256[:12]}; start `vqbet trials serve` again"
    if arms.public_key != plan.server_key:
        return "the server signs with another key than the plan names; serve with that key, or plan again with this one"
    if sorted(arms.digests) != sorted(plan.arms.values()):
        return "the server has other policies than the plan; start `vqbet trials serve` again"
    return ""

"""Blinding: order, codes and commitments of trials, derived from a secret salt by HMAC-SHA256.

The plan commits to the salt by its sha256, so that nobody can choose an order later. The salt is revealed at
unblinding, and everybody can derive all of it again. Every trial has a fresh code, so that no code tells which arms are
the same. The server proves, and the robot records, a commitment to the policy's digest: `signing.statements`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import final

from vqbet.contract import GateError
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.signing.statements import commitment

SALT_BYTES = 32
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # 32 letters and digits that are not taken for one another
CODE_LETTERS = 8


def new_salt() -> bytes:
    return secrets.token_bytes(SALT_BYTES)


def committed(salt: bytes) -> str:
    """Return the sha256 by which a plan commits to a salt."""
    return hashlib.sha256(salt).hexdigest()


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the order of trials. arm: known to the session process and to the server only."""

    number: int  # from 0
    block: int
    pair: int
    arm: str


@final
class Blinding:
    """Order, codes and keys of a plan's trials. Raises GateError where the salt is not the plan's."""

    def __init__(self, plan: TrialPlan, salt: bytes) -> None:
        if committed(salt) != plan.salt:
            raise GateError(f"the salt is not the one that plan {plan.sha256[:12]} committed to; bring that one back")
        self._salt = salt
        self.slots: tuple[Slot, ...] = tuple(self._ordered(plan))
        self.most_repeats = plan.trials

    @property
    def salt(self) -> str:
        """The salt, hexadecimal: to be shown at unblinding only."""
        return self._salt.hex()

    def code(self, slot: int, repeat: int) -> str:
        """Return the code of a trial; repeat: how often the slot was invalid before."""
        number = int.from_bytes(self._derived("code", slot, repeat), "big")
        letters = []
        for _ in range(CODE_LETTERS):
            number, place = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[place])
        return "".join(letters)

    def key(self, code: str) -> str:
        """Return the key of a trial's commitment, hexadecimal."""
        return self._derived("key", code).hex()

    def commitment(self, code: str, digest: str) -> str:
        return commitment(self.key(code), digest)

    def _ordered(self, plan: TrialPlan) -> list[Slot]:
        found: list[Slot] = []
        for block, first in enumerate(range(0, plan.pairs, plan.block)):
            cells = [(pair, arm) for pair in range(first, first + plan.block) for arm in plan.arms]
            cells.sort(key=lambda cell: self._derived("order", *cell))
            found += [Slot(len(found) + place, block, *cell) for place, cell in enumerate(cells)]
        return found

    def _derived(self, *words: object) -> bytes:
        return hmac.new(self._salt, "/".join(map(str, words)).encode(), hashlib.sha256).digest()

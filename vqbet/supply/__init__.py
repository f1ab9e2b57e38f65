"""The distributions this project stands on: as locked, their known vulnerabilities, their licences."""

from vqbet.supply import advisories, licences, locks
from vqbet.supply.advisories import Audit
from vqbet.supply.locks import Pin

__all__ = ["Audit", "Pin", "advisories", "licences", "locks"]

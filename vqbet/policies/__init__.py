"""What a bundle's policy kind means."""

from vqbet.policies.vqbet import VQBeT

POLICIES = {"vqbet": VQBeT}

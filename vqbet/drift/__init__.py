"""Drift between a new version of demonstrations and the version a champion was trained on, tested against chance.

`episodes`: shared, added and removed episodes. `shift`: the shift of each channel. `coding`: codes and reconstruction
errors of the champion's tokenizer. `chance`: permutation tests over episodes. `compare`: the report; `page`: its HTML.
numpy in and out, without any model.
"""

from vqbet.drift.coding import Coded
from vqbet.drift.compare import DriftReport, Thresholds, compare, refuse_unlike
from vqbet.drift.shift import deviation

__all__ = ["Coded", "DriftReport", "Thresholds", "compare", "deviation", "refuse_unlike"]

"""How a new version of demonstrations differs from the one a champion was trained on, and whether by more than chance.

`episodes` came and went; `shift` of each channel; `coding`, what the champion's tokenizer makes of both; `chance`, what
episodes dealt out at random would show; `report` and `page` say it. numpy in and out, no model is known here.
"""

from vqbet.drift.coding import Coded
from vqbet.drift.compare import DriftReport, Limits, compare, refuse_unlike
from vqbet.drift.shift import deviation

__all__ = ["Coded", "DriftReport", "Limits", "compare", "deviation", "refuse_unlike"]

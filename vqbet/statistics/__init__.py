"""Statistics of episodes: confidence intervals, paired comparisons, stopping rules, sample sizes.

`means`: scores and proportions. `pairs`: paired successes. `sequences`: repeated looks. `power`: sample sizes.
`fused`: few measurements and many predictions.
"""

from vqbet.statistics.fused import Fused, prediction_powered
from vqbet.statistics.means import (
    Interval,
    clopper_pearson,
    episodes_to_decide,
    halves,
    mean_interval,
    mode_entropy,
    paired_difference,
    wilson,
)
from vqbet.statistics.pairs import Pairs, bootstrap_difference, exchange, fisher, mcnemar, stratified
from vqbet.statistics.power import Retraining, mean_needed, mean_power, pairs_needed, pairs_power
from vqbet.statistics.sequences import betting_interval, boundaries, log_wealth

__all__ = [
    "Fused",
    "Interval",
    "Pairs",
    "Retraining",
    "betting_interval",
    "bootstrap_difference",
    "boundaries",
    "clopper_pearson",
    "episodes_to_decide",
    "exchange",
    "fisher",
    "halves",
    "log_wealth",
    "mcnemar",
    "mean_interval",
    "mean_needed",
    "mean_power",
    "mode_entropy",
    "paired_difference",
    "pairs_needed",
    "pairs_power",
    "prediction_powered",
    "stratified",
    "wilson",
]

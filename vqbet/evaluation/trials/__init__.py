"""Trials on a robot: a locked plan, blind arms, a chained log, and the verdict on them."""

"""Acting on a robot: a verified bundle, numpy and torch, without training, storage or registry code."""

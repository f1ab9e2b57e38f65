"""Rollouts, records, statistics and the gate. Knows policies and worlds only through the contract; no torch."""

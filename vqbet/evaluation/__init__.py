"""Rollouts, records and the gate. Uses policies and worlds only through the contract; no torch."""

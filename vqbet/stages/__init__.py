"""Stages of dvc.yaml, each in a file of its name, with their runner and shared helpers.

A stage takes parameters and paths, writes artefacts, and returns a flat dictionary of metrics.

Only this package and `commands` combine several parts. One hash per stage covers the code it runs: see code_version.
"""

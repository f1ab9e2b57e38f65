"""Stages of dvc.yaml, each in a file of its name, with their runner and shared helpers.

A stage takes parameters and paths, writes artefacts, and returns a flat dictionary of metrics.

Stages and commands alone combine several parts of the product. One hash per stage covers its code: see code_version.
"""

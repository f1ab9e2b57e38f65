"""The stages of dvc.yaml, each in a file of its name, and beside them what runs them and what several of them need.

A stage takes parameters and paths, leaves artefacts, and returns a flat dictionary of metrics.

The only rooms that know several parts. A stage depends on the code that its file runs, by one hash: see code_version.
"""

"""One file per stage: parameters and paths in, artefacts and a flat dictionary of metrics out.

The only rooms that know several parts. Each file's import closure is what dvc.yaml lists as the stage's code.
"""

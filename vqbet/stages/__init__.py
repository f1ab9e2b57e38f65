"""One file per stage: parameters and paths in, artefacts and a flat dictionary of metrics out.

The only rooms that know several parts. A stage depends on the code that its file runs, by one hash: see code_version.
"""

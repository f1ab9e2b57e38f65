"""`vqbet new`: the section of a task in params.yaml, from what its demonstrations show."""

"""Tasks that are declared in params.yaml: their worlds are environments of Gymnasium, named and not programmed."""

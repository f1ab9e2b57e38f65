"""Errors that a user can meet. Each message says what was expected, what came, where, and what to do:

VqbetError
|-- ConfigError       params.yaml: unknown key, wrong type, out of bounds
|-- StoreError        a demonstration store cannot be read or written
|-- ValidationError   a store was read, and its demonstrations are not fit for training
|-- TrainingError     a model cannot be trained, resumed, or came out unhealthy
|-- BundleError       a policy on disk is not what it claims to be
|-- WorldError        a simulator does not support a request
|-- ServingError      policy server and robot do not fit together, cannot be reached, or break the protocol
|-- GateError         records, plan and verdict do not belong together
|-- RegistryError     the model registry cannot be reached, or refuses
|-- StorageError      the S3 bucket cannot be reached, refuses, or does not hold what it should
|-- TeamError         a part of the team (database, server, worker) cannot be started, reached, or joined
|-- SupplyError       a lock, or a list about locked distributions, is missing or broken
`-- PipelineError     DVC or Prefect could not do what was requested
"""

from __future__ import annotations


class VqbetError(Exception):
    """Base class of the errors that a user can cause and fix. Shown without a traceback; the exit code is 1."""


class ConfigError(VqbetError):
    """Raised where params.yaml does not fit the schema in `vqbet.config`."""


class StoreError(VqbetError):
    """Raised where a demonstration store cannot be read or written."""


class ValidationError(VqbetError):
    """Raised where demonstrations were read and are not fit for training."""


class TrainingError(VqbetError):
    """Raised where a model cannot be trained or resumed, or came out unhealthy."""


class BundleError(VqbetError):
    """Raised where a policy on disk is not what it claims to be."""


class WorldError(VqbetError):
    """Raised where a simulator does not support a request."""


class ServingError(VqbetError):
    """Raised where policy server and robot do not fit together, cannot be reached, or break the protocol."""


class GateError(VqbetError):
    """Raised where records, plan and verdict do not belong together."""


class RegistryError(VqbetError):
    """Raised where the model registry cannot be reached, or refuses."""


class StorageError(VqbetError):
    """Raised where the S3 bucket cannot be reached, refuses, or does not hold what it should."""


class TeamError(VqbetError):
    """Raised where a part of the team (database, server, worker) cannot be started, reached, or joined."""


class SupplyError(VqbetError):
    """Raised where a lock, or a list about locked distributions, is missing or broken."""


class PipelineError(VqbetError):
    """Raised where DVC or Prefect could not do what was requested."""

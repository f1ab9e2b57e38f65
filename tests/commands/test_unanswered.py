"""Which errors are a server's that did not answer: those of real clients, whose server is not there or breaks off."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vqbet.commands import console, unanswered
from vqbet.contract import PipelineError, RegistryError


@pytest.fixture(params=["nobody listens", "breaks off"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port where no server answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    number = int(listener.getsockname()[1])
    if request.param == "nobody listens":
        listener.close()
        yield number
        return

    def serve() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield number
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def by_url(port: int) -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)


def by_requests(port: int) -> None:
    import requests

    requests.get(f"http://127.0.0.1:{port}/", timeout=5)


def by_boto(port: int) -> None:
    import boto3
    from botocore.config import Config

    key = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    once = Config(retries={"total_max_attempts": 1})
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", config=once, **key).list_buckets()


def by_postgres(port: int) -> None:
    import sqlalchemy

    sqlalchemy.create_engine(f"postgresql+pg8000://a:b@127.0.0.1:{port}/c").connect()


def by_mlflow(port: int) -> None:
    from unittest.mock import patch

    with patch.dict("os.environ", {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}):
        from mlflow import MlflowClient

        MlflowClient(f"http://127.0.0.1:{port}").get_experiment("0")


@pytest.mark.parametrize("call", [by_url, by_requests, by_boto, by_postgres, by_mlflow])
def test_a_client_whose_server_is_away_is_worth_another_try(port: int, call: Callable[[int], Any]) -> None:
    with pytest.raises(Exception) as caught:  # each library has its own
        call(port)
    assert unanswered.by_server(caught.value), repr(caught.value)
    wrapped = RegistryError("the ledger cannot be read")
    wrapped.__cause__ = caught.value
    assert unanswered.by_server(wrapped)


def test_a_refusal_is_none() -> None:
    from botocore.exceptions import ClientError

    refused: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    for error in (
        RegistryError("no version 3"),
        ValueError("x"),
        ClientError(refused, "GetObject"),
        OSError(28, "full"),
    ):
        assert not unanswered.by_server(error), repr(error)


def test_the_sentence_of_a_command_tells_a_flow(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(cause: Exception) -> Callable[[], None]:
        def command() -> None:
            raise RegistryError("the ledger cannot be read") from cause

        return command

    assert console.guarded(fails(ConnectionRefusedError(111, "refused"))) == 1
    told = capsys.readouterr().err
    assert told == f"error: the ledger cannot be read; {unanswered.ADVICE}\n"
    assert unanswered.by_server(PipelineError(f"dvc repro gate@blockpush: {told}"))
    assert console.guarded(fails(ValueError("broken chain"))) == 1
    assert capsys.readouterr().err == "error: the ledger cannot be read\n"

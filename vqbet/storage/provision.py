"""Creation of buckets on a server of the team's own."""

from __future__ import annotations

from collections.abc import Sequence

from vqbet.storage import client

PATIENCE_S = 2.0  # whoever starts a server asks again


def provision(names: Sequence[str], *, endpoint: str, key: str, secret: str, region: str) -> None:
    """Create those of the buckets `names` that do not exist.

    Raises StorageError if the server refuses the key, or does not answer within seconds.
    """
    opened = client.client(
        endpoint, endpoint_url=endpoint, key=key, secret=secret, region=region, patience_s=PATIENCE_S
    )
    with client.refused(endpoint, "be set up"):
        there = {bucket["Name"] for bucket in opened.list_buckets().get("Buckets", [])}
        for name in names:
            if name not in there:
                opened.create_bucket(Bucket=name)

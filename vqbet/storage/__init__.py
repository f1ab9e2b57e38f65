"""Interface to S3: copies of evidence that outlive this machine, and objects that are created exactly once.

VQBET_STORAGE=s3://<bucket>/<prefix> names the place; endpoint, region and credentials are boto3's own variables. If
VQBET_STORAGE is not set, nothing is stored and no request is made. boto3 is imported inside functions.
"""

from vqbet.storage import shared
from vqbet.storage.bucket import Bucket, configured
from vqbet.storage.locks import create, versions
from vqbet.storage.provision import provision

__all__ = ["Bucket", "configured", "create", "provision", "shared", "versions"]

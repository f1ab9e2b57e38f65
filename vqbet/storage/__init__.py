"""S3 behind one door: copies of evidence that outlive this machine, and objects that are made exactly once.

VQBET_STORAGE=s3://<bucket>/<prefix> says where; endpoint, region and credentials are boto3's own variables. Where it is
not set nothing is stored and nothing is asked. boto3 is imported inside functions.
"""

from vqbet.storage.bucket import Bucket, configured
from vqbet.storage.locks import create, versions

__all__ = ["Bucket", "configured", "create", "versions"]

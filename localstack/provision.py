"""Makes what the tests need in a LocalStack that has just been started.

Waits until KMS, S3, STS and IAM are up, creates one KMS key and three buckets, and prints
their names as `NAME=VALUE` lines for `localstack/run` to export. It is Python and not a
list of `aws` calls because boto3 comes with LocalStack, so that the host needs no AWS CLI.

Usage: provision.py ENDPOINT SECONDS [PID]

SECONDS bounds the wait; it ends early when the server, process PID, is gone.
"""

import json
import os
import sys
import time
import urllib.request

import boto3
from botocore.config import Config

SERVICES = ("kms", "s3", "sts", "iam")
BLOBS = "strongroom-blobs"
KEYS = "strongroom-keys"
AUDIT = "strongroom-audit"


def main(endpoint: str, seconds: str, pid: str | None = None) -> None:
    wait_until_healthy(endpoint, float(seconds), int(pid) if pid else None)

    session = boto3.Session(
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    kms = session.client("kms", endpoint_url=endpoint)
    # Path style, because a bucket's own host name would need DNS.
    s3 = session.client(
        "s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"})
    )

    key = kms.create_key(Description="strongroom tests")["KeyMetadata"]["Arn"]

    s3.create_bucket(Bucket=BLOBS)
    s3.create_bucket(Bucket=KEYS)
    # Object Lock is enabled and has no default retention: a test sets the one that it is about.
    s3.create_bucket(Bucket=AUDIT, ObjectLockEnabledForBucket=True)
    for bucket in (KEYS, AUDIT):
        s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )

    print(f"STRONGROOM_TEST_KMS_ARN={key}")
    print(f"STRONGROOM_TEST_BUCKET_BLOBS={BLOBS}")
    print(f"STRONGROOM_TEST_BUCKET_KEYS={KEYS}")
    print(f"STRONGROOM_TEST_BUCKET_AUDIT={AUDIT}")


def wait_until_healthy(endpoint: str, seconds: float, pid: int | None) -> None:
    """Returns when every service is up; exits when that takes too long or the server died."""
    # A proxy from the environment must not get between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    seen = "no answer"
    while time.monotonic() < deadline:
        # Asked first: whatever answers in a dead server's place is not ours.
        if pid is not None and not alive(pid):
            sys.exit("LocalStack ended before it was ready")
        try:
            with opener.open(f"{endpoint}/_localstack/health", timeout=5) as answer:
                services = json.load(answer)["services"]
            seen = ", ".join(f"{name} {services.get(name, 'missing')}" for name in SERVICES)
            if all(services.get(name) in ("available", "running") for name in SERVICES):
                return
        except (OSError, ValueError, KeyError) as error:
            seen = str(error)
        time.sleep(0.25)
    sys.exit(f"LocalStack was not ready after {seconds:.0f} s: {seen}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])

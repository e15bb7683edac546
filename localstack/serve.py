"""Starts LocalStack in this process, with its S3 objects where `localstack/run` put TMPDIR.

LocalStack keeps the larger objects under /tmp/localstack-s3-storage/BUCKET, whatever it is
told, and removes that directory with the bucket: of two runs on one machine the first to
delete a bucket would break the other's of the same name. So its store is given no directory,
upon which it makes one of its own under TMPDIR.
"""

import runpy

from localstack.services.s3.storage.ephemeral import EphemeralS3ObjectStore

make_store = EphemeralS3ObjectStore.__init__
EphemeralS3ObjectStore.__init__ = lambda self, *_, **__: make_store(self)

if __name__ == "__main__":
    runpy.run_module("localstack.runtime.main", run_name="__main__", alter_sys=True)

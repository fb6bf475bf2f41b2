"""What tests of several files stand on."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that nobody is left alone with them at the end."""
    items.sort(key=lambda item: "distributed" not in item.path.parts)


@pytest.fixture(scope="module")
def port():
    """Start a server that speaks S3, a process of its own; yield where it listens."""
    from buckets import s3_server

    with s3_server() as port:
        yield port


@pytest.fixture(scope="module")
def bucket(port):
    """Return a bucket of that server."""
    from buckets import Bucket

    return Bucket(port)

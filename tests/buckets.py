"""A server that speaks S3, in a process of its own, and the network between it and us."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("moto", reason="the server is moto's: pip install 'hotlap[storage,dev]'")
pytest.importorskip("s3fs", reason="pip install 'hotlap[storage]'")

import boto3
import s3fs

BUCKET = "cars"


class Network:
    """A TCP relay to a port of this machine, which can be cut."""

    def __init__(self, target):
        self.target, self.open, self.passed = target, True, 0
        self._pairs = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._ends = False
        self._thread.start()

    def cut(self):
        self.open = False

    def mend(self):
        self.open = True

    def close(self):
        self._ends = True
        self._thread.join()
        self._listener.close()

    def _relay(self):
        ways = {}
        while not self._ends:
            ready, _, _ = select.select([self._listener, *ways], [], [], 0.02)
            if not self.open:
                for one in ways:
                    one.close()
                ways.clear()
            for one in ready:
                if one is self._listener:
                    client, _ = one.accept()
                    if not self.open:
                        client.close()
                        continue
                    server = socket.create_connection(("127.0.0.1", self.target))
                    ways[client], ways[server] = server, client
                elif one in ways:
                    try:
                        content = one.recv(1 << 16)
                        if content:
                            ways[one].sendall(content)
                            self.passed += len(content)
                            continue
                    except OSError:
                        pass
                    other = ways.pop(one)
                    ways.pop(other, None)
                    one.close()
                    other.close()
        for one in ways:
            one.close()


@contextlib.contextmanager
def s3_server(**environment):
    """Start the server; yield its address, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5).close()
                break
            except urllib.error.HTTPError as error:  # it speaks
                error.close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def point_to(monkeypatch, port, home):
    """Let AWS's ordinary environment name a server, and make this an empty machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "one",
        "AWS_SECRET_ACCESS_KEY": "two",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "HOTLAP_HOME": str(home),
        "HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()


class Bucket:
    """What lies in a bucket, seen by Amazon's own client."""

    def __init__(self, port):
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="one",
            aws_secret_access_key="two",
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def names(self, prefix):
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{prefix}/"
        )
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return {key.removeprefix(f"{prefix}/") for key in keys}

    def read(self, key):
        try:
            return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def write(self, key, content):
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def claims(self, prefix):
        names = sorted(name for name in self.names(prefix) if name.startswith("claims/"))
        return {name: json.loads(self.read(f"{prefix}/{name}")) for name in names}


def wait_for(what, seconds=30.0):
    """Wait until something is true, and return it."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.02)
    return found

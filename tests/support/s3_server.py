"""An S3 server on this machine: moto's, where it is installed (pip install 'moto[server]' 's3fs')."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.request import Request, urlopen

BUCKET = "dreampolish"


def is_installed() -> bool:
    """Whether tests against S3 can be run."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask", "s3fs"))


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(port: int) -> Iterator[dict[str, str]]:
    """A server with an empty bucket; the environment that leads clients there."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 120
            while True:
                with suppress(OSError):
                    urlopen(Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT"), timeout=30).read()
                    break
                assert server.poll() is None and time.monotonic() < until, "the S3 server did not start"
                time.sleep(0.2)
            yield environment_of(port)
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()


def environment_of(port: int) -> dict[str, str]:
    """What leads clients to a server on this machine."""
    known = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **known, "NO_PROXY": os.environ.get("NO_PROXY", "127.0.0.1")}

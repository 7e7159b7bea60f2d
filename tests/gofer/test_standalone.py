"""`python -m gofer`: plain 9P2000.L over TCP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import gofer
from gofer.__main__ import parse
from sentry.fs.gofer.client import Client


def test_serves_over_tcp(tree: Path) -> None:
    (tree / "file").write_bytes(b"over tcp")
    environment = {**os.environ, "PYTHONPATH": str(Path(gofer.__file__).parent.parent)}
    command = [sys.executable, "-m", "gofer", "--root", str(tree), "--listen", "127.0.0.1:0", "--ro"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/", text=True
    )
    try:
        assert server.stdout is not None and server.stderr is not None
        port = int(server.stdout.readline())
        for _ in range(2):  # one Gofer a connection
            sock = socket.create_connection(("127.0.0.1", port), timeout=20)
            sock.settimeout(None)
            client = Client(sock.detach())
            client.run(client.start(extension=True))
            assert not client.extended  # no descriptors over TCP
            root, _ = client.run(client.attach())
            fid, _ = client.run(client.walk(root, [b"file"]))
            assert client.run(client.open_fd(fid, os.O_RDONLY))[0] is None
            assert client.run(client.read(fid, 0, 100)) == b"over tcp"
            client.close()
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=20)
    assert "error" not in errors.lower()


@pytest.mark.parametrize("listen", ["0.0.0.0:5640", "192.0.2.1:1", "[::]:5640", "nowhere", "127.0.0.1:x"])
def test_refuses_other_addresses(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--root", "/", "--listen", listen])
    assert "usage: gofer" in capsys.readouterr().err


def test_addresses() -> None:
    assert parse(["--root", "/", "--listen", "127.0.0.1:0"]).address == ("127.0.0.1", 0)
    assert parse(["--root", "/", "--listen", "[::1]:99"]).address == ("::1", 99)
    assert parse(["--root", "/", "--listen", "0.0.0.0:99", "--any-address"]).address == ("0.0.0.0", 99)
    with pytest.raises(SystemExit):
        parse(["--root", "/none"])

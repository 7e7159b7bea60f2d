"""`python -m gofer --root DIR --listen 127.0.0.1:PORT`: the Gofer for other clients, over TCP.

Plain 9P2000.L, one confined process a connection, as in the sandbox.  There is no authentication:
whoever can connect has the rights of the user who started it, so only loopback addresses are taken
unless --any-address says otherwise.  To mount it:

    mount -t 9p -o trans=tcp,port=PORT,version=9p2000.L 127.0.0.1 /mnt
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import socket
import sys

from gofer.filter import compile_filter
from gofer.main import Export, read_status, run


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gofer", description="Serve a directory over 9P2000.L.")
    parser.add_argument("--root", required=True, metavar="DIR", help="what to serve")
    parser.add_argument(
        "--listen", default="127.0.0.1:5640", metavar="ADDR:PORT", help="default: %(default)s"
    )
    parser.add_argument("--ro", action="store_true", help="refuse every change")
    parser.add_argument("--any-address", action="store_true", help="listen on other addresses than loopback")
    options = parser.parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        options.address = (str(address), int(port))
        options.family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    except ValueError:
        parser.error(f"--listen wants ADDRESS:PORT, not {options.listen!r}")
    if not address.is_loopback and not options.any_address:
        parser.error(f"{address} is no loopback address, and there is no authentication: say --any-address")
    if not os.path.isdir(options.root):
        parser.error(f"{options.root!r} is no directory")
    return options


def serve_one(connection: socket.socket, options: argparse.Namespace, seccomp: bytes) -> None:
    """Fork a Gofer for one connection; what it can't do is said on stderr."""
    status_r, status_w = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exports = [Export(b"", os.path.realpath(options.root), options.ro)]
        run(connection.detach(), exports, seccomp, debug_fd=2, status_fd=status_w, parent_pid=parent)
    os.close(status_w)
    connection.close()
    _, error = read_status(status_r)
    if error:
        print(f"gofer: {error}", file=sys.stderr)


def main() -> None:
    options = parse()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    seccomp = compile_filter(not options.ro)
    with socket.create_server(options.address, family=options.family) as listener:
        print(f"gofer: serving {options.root} on {options.listen}", file=sys.stderr)
        # The port, where it was left to the host; for scripts.
        print(listener.getsockname()[1], flush=True)
        try:
            while True:
                serve_one(listener.accept()[0], options, seccomp)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()

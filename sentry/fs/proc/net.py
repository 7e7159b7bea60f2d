"""/proc/net (proc_pid_net(5)): Unix sockets; for others, headings without sockets below them."""

from __future__ import annotations

from sentry.abi.socket import SUN_PATH, TCP_ESTABLISHED, TCP_LISTEN
from sentry.fs.proc.base import Room, current_task
from sentry.fs.proc.sequence import SequenceInode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.proc.filesystem import ProcFilesystem
    from sentry.kernel.kernel import Kernel
    from sentry.net.namespace import NetNamespace
    from sentry.net.unix.sock import UnixSock

_TCP = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    b"                                                     \n"
)
_TCP6 = (
    b"  sl  local_address                         remote_address                        st tx_queue "
    b"rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
_UDP = (
    b"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref "
    b"pointer drops            \n"
)
_UDP6 = (
    b"  sl  local_address                         remote_address                        st tx_queue "
    b"rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
)
_DEV = (
    b"Inter-|   Receive                                                |  Transmit\n"
    b" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo "
    b"colls carrier compressed\n"
    b"    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0"
    b"       0          0\n"
)
_ROUTE = b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
#: Sockets whose lines are made in one turn.
PIECE = 256
#: The states and flags of /proc/net/unix (linux/net.h).
_UNCONNECTED, _CONNECTING, _CONNECTED, _ACCEPTS = 1, 2, 3, 1 << 16


def _unix_line(sock: UnixSock) -> bytes:
    file, state = sock.file, sock.state
    if file is None:
        shown, ino = _CONNECTING, 0
    else:
        shown, ino = _CONNECTED if state == TCP_ESTABLISHED else _UNCONNECTED, file.inode.ino
    refs, flags = 3 if sock.peer is not None else 2, _ACCEPTS if state == TCP_LISTEN else 0
    line = b"%016X: %08X %08X %08X %04X %02X %5d" % (0, refs, 0, flags, sock.type, shown, ino)
    path = sock.name()[SUN_PATH:]
    if path[:1] == b"\0":
        return line + b" " + path.replace(b"\0", b"@") + b"\n"
    return line + b" " + path[:-1].replace(b"\0", b"@") + b"\n" if path else line + b"\n"


def _net(kernel: Kernel) -> NetNamespace:
    """The namespace of whoever looks."""
    task = current_task()
    return kernel.net if task is None else task.nsproxy.net


def _unix(kernel: Kernel, cursor: int) -> tuple[bytes, int]:
    """The next lines behind socket number `cursor` - 1; see sequence.py."""
    lines = [] if cursor else [b"Num       RefCount Protocol Flags    Type St Inode Path\n"]
    for sock in _net(kernel).unix.after(cursor - 1, PIECE):
        lines.append(_unix_line(sock))
        cursor = sock.number + 1
    return b"".join(lines), max(cursor, 1)


def _unix_file(fs: ProcFilesystem, kernel: Kernel) -> SequenceInode:
    make: Any = lambda cursor: _unix(kernel, cursor)  # noqa: E731
    return SequenceInode(fs, fs.new_ino(), 0o444, make)


def _sockstat(kernel: Kernel) -> bytes:
    used = sum(1 for sock in _net(kernel).unix.sockets.values() if sock.file is not None)
    return (
        b"sockets: used %d\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nRAW: inuse 0\n"
        % used
    )


TREE = {
    b"arp": b"IP address       HW type     Flags       HW address            Mask     Device\n",
    b"dev": _DEV,
    b"if_inet6": b"00000000000000000000000000000001 01 80 10 80       lo\n",
    b"igmp": b"Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n",
    b"ipv6_route": b"",
    b"netlink": b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    b"packet": b"sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n",
    b"protocols": b"protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in "
    b"de sh ss gs se re bi br ha uh gp em\n",
    b"psched": b"000003e8 00000040 000f4240 3b9aca00\n",
    b"raw": _UDP,
    b"raw6": _UDP6,
    b"route": _ROUTE.ljust(127) + b"\n",
    b"sockstat": _sockstat,
    b"sockstat6": b"TCP6: inuse 0\nUDP6: inuse 0\nRAW6: inuse 0\n",
    b"tcp": _TCP,
    b"tcp6": _TCP6,
    b"udp": _UDP,
    b"udp6": _UDP6,
    b"unix": Room(_unix_file),
    b"wireless": b"",
}

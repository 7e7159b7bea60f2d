"""/proc/net: headings without sockets below them, until there is a network stack to ask."""

from __future__ import annotations

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
    b"sockstat": b"sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\n"
    b"RAW: inuse 0\n",
    b"sockstat6": b"TCP6: inuse 0\nUDP6: inuse 0\nRAW6: inuse 0\n",
    b"tcp": _TCP,
    b"tcp6": _TCP6,
    b"udp": _UDP,
    b"udp6": _UDP6,
    b"unix": b"Num       RefCount Protocol Flags    Type St Inode Path\n",
    b"wireless": b"",
}

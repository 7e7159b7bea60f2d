"""wait(2): options and status words."""

WNOHANG = 1
WUNTRACED = 2
WSTOPPED = 2
WEXITED = 4
WCONTINUED = 8
WNOWAIT = 0x01000000
WNOTHREAD = 0x20000000
WALL = 0x40000000
WCLONE = 0x80000000

P_ALL = 0
P_PID = 1
P_PGID = 2
P_PIDFD = 3

CONTINUED_STATUS = 0xFFFF


def exit_status(code: int) -> int:
    return (code & 0xFF) << 8


def signal_status(signo: int, core: bool = False) -> int:
    return signo | (0x80 if core else 0)


def stop_status(signo: int) -> int:
    return signo << 8 | 0x7F

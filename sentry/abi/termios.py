"""Flags, characters and layouts of termios(3) as the kernel has them (asm-generic/termbits.h)."""

from __future__ import annotations

from _struct import Struct

NCCS = 19
VINTR, VQUIT, VERASE, VKILL, VEOF, VTIME, VMIN, VSWTC, VSTART, VSTOP = range(10)
VSUSP, VEOL, VREPRINT, VDISCARD, VWERASE, VLNEXT, VEOL2 = range(10, 17)

IGNBRK, BRKINT, IGNPAR, PARMRK = 0o1, 0o2, 0o4, 0o10
INPCK, ISTRIP, INLCR, IGNCR = 0o20, 0o40, 0o100, 0o200
ICRNL, IUCLC, IXON, IXANY = 0o400, 0o1000, 0o2000, 0o4000
IXOFF, IMAXBEL, IUTF8 = 0o10000, 0o20000, 0o40000

OPOST, OLCUC, ONLCR, OCRNL = 0o1, 0o2, 0o4, 0o10
ONOCR, ONLRET = 0o20, 0o40
TABDLY, XTABS = 0o14000, 0o14000

CBAUD, CSIZE, CS8, CREAD = 0o10017, 0o60, 0o60, 0o200
PARENB, HUPCL, CLOCAL, BOTHER = 0o400, 0o2000, 0o4000, 0o10000
ADDRB = 0o4000000000
#: Where c_cflag has the code of the input speed.
IBSHIFT = 16
B38400 = 0o17
#: CBAUD code → bits per second.
SPEEDS = {
    0: 0, 1: 50, 2: 75, 3: 110, 4: 134, 5: 150, 6: 200, 7: 300, 8: 600, 9: 1200, 10: 1800, 11: 2400, 12: 4800,
    13: 9600, 14: 19200, 15: 38400, 0o10001: 57600, 0o10002: 115200, 0o10003: 230400, 0o10004: 460800,
    0o10005: 500000, 0o10006: 576000, 0o10007: 921600, 0o10010: 1000000, 0o10011: 1152000, 0o10012: 1500000,
    0o10013: 2000000, 0o10014: 2500000, 0o10015: 3000000, 0o10016: 3500000, 0o10017: 4000000,
}  # fmt: skip

ISIG, ICANON, XCASE, ECHO = 0o1, 0o2, 0o4, 0o10
ECHOE, ECHOK, ECHONL, NOFLSH = 0o20, 0o40, 0o100, 0o200
TOSTOP, ECHOCTL, ECHOPRT, ECHOKE = 0o400, 0o1000, 0o2000, 0o4000
FLUSHO, PENDIN, IEXTEN, EXTPROC = 0o10000, 0o40000, 0o100000, 0o200000

TCOOFF, TCOON, TCIOFF, TCION = range(4)
TCIFLUSH, TCOFLUSH, TCIOFLUSH = range(3)

TIOCPKT_DATA = 0
TIOCPKT_FLUSHREAD = 1
TIOCPKT_FLUSHWRITE = 2
TIOCPKT_STOP = 4
TIOCPKT_START = 8
TIOCPKT_NOSTOP = 16
TIOCPKT_DOSTOP = 32
TIOCPKT_IOCTL = 64

#: struct termios (kernel): iflag oflag cflag lflag line cc.
TERMIOS = Struct("<IIIIB19s")
#: struct termios2: the same, then input and output speed.
TERMIOS2 = Struct("<IIIIB19sII")
#: struct termio of System V: 16-bit flags, line, eight characters.
TERMIO = Struct("<HHHHB8sx")
#: struct winsize: rows, columns, pixels across, pixels down.
WINSIZE = Struct("<HHHH")

#: The control characters a terminal starts with (asm-generic/termios.h, INIT_C_CC).
INIT_CC = bytes([3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0])

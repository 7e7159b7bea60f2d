"""Terminals.

job.py        what every terminal has: a session, a foreground process group, job control
ldisc.py      the line discipline (n_tty): editing, signals, reading
output.py     its output side: processing, echoes, flow control
modes.py      struct termios in its several layouts
pty.py        a pair of master and slave, and the files on its two sides
control.py    ioctl on them
filesystem.py devpts: /dev/pts/N and ptmx
hosttty.py    a terminal of the host behind a guest descriptor
bridge.py     relays the host's terminal to a guest pty (`sentry run -t`)
"""

"""procfs: the kernel's state as files (proc(5)), all of it the Sentry's own.

filesystem.py is what is mounted; base.py has the kinds of inodes; root.py what stands in /proc itself,
system.py, sysctl.py and net.py its contents; task.py /proc/PID, with status.py, maps.py, links.py and
memory.py; mounts.py what both
/proc/mounts and mountinfo show.

A file is generated whole when it is read from its beginning, so one reading is one moment; nothing
is kept between openings, and directories of tasks and descriptors are looked up anew each time.
"""

from __future__ import annotations

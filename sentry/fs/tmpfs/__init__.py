"""tmpfs: files in the Sentry's memory (tmpfs(5)).

inode.py has the file system, directories, links and nodes; regular.py regular files: their data
and what an open one does.  The overlay (sentry/fs/overlay) builds on both.
"""

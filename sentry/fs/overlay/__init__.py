"""overlay: a tree that can be changed over one that stays as it is (Linux's overlayfs).

inode.py.  Unlike on Linux the upper layer is always memory, so it needs no directory of its own: an
inode here is a tmpfs inode that may have a `lower` one, and whiteouts are sets of names.
"""

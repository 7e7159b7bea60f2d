"""The Gofer: a confined process that serves one file tree (and its binds) over 9P2000.L.

Read messages.py first (what is said on the wire), then server.py (how a request is answered),
localfs.py (how a host file is reached) and confine.py (what the process may do at all).
"""

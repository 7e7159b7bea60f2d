"""Interprocess communication that has names of its own: System V IPC and POSIX message queues.

`IpcNamespace` (namespace.py) owns all of it; a task refers to its namespace by `Task.ipc`.
"""

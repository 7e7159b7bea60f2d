"""The kernel: tasks, thread groups, signals, wait queues, timers, descriptor tables, credentials.

Lock order: there is none.  Handlers are coroutines on one thread and nothing else runs between
two awaits (see wait.py, which imports only sentry.abi so that every package may wait).
"""

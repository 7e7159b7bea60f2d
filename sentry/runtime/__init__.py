"""Boots and confines a sandbox.

The way of a run: `commands/run.py` turns the command line into a `Config`; `boot.py` (in the CLI's
process) opens everything that will be needed, starts the Gofer and pid 1 of the sandbox's
namespaces; `inside.py` is what pid 1 and the Sentry do there, `confine.py` how they give up their
rights; `supervise.py` is what the CLI does afterwards: wait, pass signals on, clean up.
"""

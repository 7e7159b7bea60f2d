"""One verb of the command line a module, with a `main(args) -> status`; here is what they are."""

from __future__ import annotations

VERBS = ("run", "help")

USAGE = """\
Usage: sentry VERB [FLAG...] [ARG...]

Runs unmodified Linux programs on a kernel of their own, in user space.

Verbs:
  run       run a program in a new sandbox
  help      explain a verb: sentry help run

Flags:
  --version   print the version
  -h, --help  print this text
"""

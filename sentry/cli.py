"""The command line: finds the verb, runs its module, turns errors into one line and a status.

It imports next to nothing itself, since every import is paid before a sandbox starts (argparse alone
costs 10 ms).  One verb is one module in sentry/runtime/commands/ with a `main(args) -> status`.
"""

from __future__ import annotations

import _signal
import os
import sys

from sentry.runtime import bundle
from sentry.runtime.commands import USAGE, VERBS
from sentry.runtime.errors import Fatal, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def verb_main(verb: str) -> Callable[[list[str]], int]:
    module = __import__("sentry.runtime.commands." + verb, None, None, ["main"])
    entry: Callable[[list[str]], int] = module.main
    return entry


def dispatch(args: list[str]) -> int:
    try:
        if not args:
            os.write(2, USAGE.encode())
            return 128
        if args[0] in ("-h", "--help"):
            os.write(1, USAGE.encode())
            return 0
        if args[0] in ("-V", "--version"):
            from sentry import __version__

            os.write(1, f"sentry {__version__}\n".encode())
            return 0
        if args[0] not in VERBS:
            kind = "flag" if args[0].startswith("-") else "verb"
            raise Fatal(f"unknown {kind} '{args[0]}' (see 'sentry --help')")
        bundle.install()
        return verb_main(args[0])(args[1:])
    except Fatal as error:
        say(error.text)
        return error.status


def main(args: list[str] | None = None) -> None:
    """Never returns: the interpreter's own way out costs milliseconds and has nothing to do here."""
    # Until the supervisor takes over, Ctrl-C shall end the process silently, not in a traceback.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    given = sys.argv[1:] if args is None else args
    try:
        status = dispatch(given)
    except BaseException as error:
        status = 128
        if "--debug" in given[: given.index("--") if "--" in given else None]:
            sys.__excepthook__(type(error), error, error.__traceback__)
        else:
            say(f"internal error: {type(error).__name__}: {error}; run with --debug for details")
    os._exit(status)

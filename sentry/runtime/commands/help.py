"""`sentry help [VERB]`."""

from __future__ import annotations

import os

from sentry.runtime.commands import USAGE, VERBS
from sentry.runtime.errors import Fatal


def main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        text = USAGE
    elif args[0] in VERBS:
        text = __import__("sentry.runtime.commands." + args[0], None, None, ["HELP"]).HELP
    else:
        raise Fatal(f"unknown verb '{args[0]}' (see 'sentry --help')")
    os.write(1, text.encode())
    return 0

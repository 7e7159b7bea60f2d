"""Who takes part: the host itself, our own sandbox on each platform, and the peers that are installed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import ENVIRONMENT, run

ROOT = Path(__file__).resolve().parent.parent
BUILT_IN_PLACE = bool(list(ROOT.glob("sentry/_engine*.so")))
NATIVE = "native"
PROBE_SECONDS = 20.0
#: What a word of `sentry run --help` has to be to be taken for a platform.
PLATFORM = re.compile(r"\b(trap|ptrace|kvm)\b")
#: Flags of `sentry run` that each make one more column with --variants.
VARIANTS = ["--no-fastpath", "--no-patch"]


@dataclass
class Contender:
    """`prefix` is put before each command; {dir} in it stands for the directory that the command works in."""

    name: str
    prefix: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    ours: bool = False
    version: str = ""

    def argv(self, command: list[str], directory: Path) -> list[str]:
        return [word.replace("{dir}", str(directory)) for word in self.prefix] + command

    @property
    def shown(self) -> str:
        return " ".join([*self.prefix, "CMD"])


@dataclass
class Missing:
    name: str
    reason: str


def sentry_command() -> list[str]:
    """What starts the sandbox: the checkout when it was built in place, else the installed command."""
    beside = Path(sys.executable).parent / "sentry"
    if BUILT_IN_PLACE or not beside.exists():
        return [sys.executable, "-c", "from sentry.cli import main; main()"]
    return [str(beside)]


def sentry_environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT)} if BUILT_IN_PLACE else {}


def run_help(command: list[str]) -> str:
    return run([*command, "run", "--help"], timeout=PROBE_SECONDS, env=sentry_environment()).out


def platforms(help_text: str) -> list[str]:
    """The names on the line of --platform, the default first; [''] when there is no such flag."""
    line = re.search(r"^\s*--platform\b.*$", help_text, re.MULTILINE)
    names = list(dict.fromkeys(PLATFORM.findall(line[0]))) if line else []
    default = re.search(r"(\w+) \([^)]*\bdefault\)|\(default:? (\w+)\)", line[0]) if line else None
    if default:
        names.sort(key=lambda name: name not in default.groups())
    return names or [""]


def ours(variants: bool) -> list[Contender]:
    command = sentry_command()
    help_text = run_help(command)
    env = sentry_environment()
    found = []
    for platform in platforms(help_text):
        flags = [f"--platform={platform}"] if platform else []
        names = f"sentry:{platform}" if platform else "sentry"
        found.append(Contender(names, [*command, "run", *flags, "--"], env, ours=True))
        for variant in VARIANTS if variants else []:
            if re.search(rf"^\s*{variant}\b", help_text, re.MULTILINE):
                name = f"{names},{variant.removeprefix('--')}"
                found.append(Contender(name, [*command, "run", *flags, variant, "--"], env, ours=True))
    return found


def first_line(command: list[str]) -> str:
    lines = run(command, timeout=PROBE_SECONDS).out.splitlines()
    return lines[0].strip() if lines else ""


def runsc_prefix(path: str, platform: str, network: str) -> list[str]:
    rootless = ["--rootless"] if os.geteuid() != 0 else []
    return [path, f"--platform={platform}", f"--network={network}", *rootless, "--ignore-cgroups", "do"]


def bwrap_prefix(path: str) -> list[str]:
    view = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    return [path, "--unshare-all", *view, "--bind", "{dir}", "{dir}", "--chdir", "{dir}"]


def peer_candidates(given: list[str], network: str) -> list[tuple[str, list[str]]]:
    """(name, what is put before a command, or nothing); `given` are PATH[:PLATFORM,...] of runsc binaries."""
    installed = shutil.which("runsc", path=ENVIRONMENT["PATH"])
    found = [
        (f"runsc:{name}", runsc_prefix(installed, name, network) if installed else [])
        for name in ("ptrace", "systrap")
    ]
    for number, word in enumerate(given, 2):
        path, _, names = word.partition(":")
        for platform in (names or "systrap,ptrace").split(","):
            found.append(
                (f"runsc{number}:{platform}", runsc_prefix(os.path.abspath(path), platform, network))
            )
    for name in ("proot", "bwrap"):
        there = shutil.which(name, path=ENVIRONMENT["PATH"])
        found.append((name, [] if not there else [there] if name == "proot" else bwrap_prefix(there)))
    return found


def probe(contender: Contender, directory: Path) -> str:
    """Why this one can't take part, or the empty string."""
    outcome = run(
        contender.argv(["/bin/echo", "ok"], directory),
        cwd=directory,
        timeout=PROBE_SECONDS,
        env=contender.env,
    )
    if outcome.status == 0 and outcome.out.split() == ["ok"]:
        return ""
    return outcome.reason()


def choose(contender: Contender, directory: Path) -> Contender | Missing:
    reason = probe(contender, directory) if contender.prefix else "not installed"
    if reason:
        return Missing(contender.name, reason)
    if not contender.ours:
        contender.version = first_line([contender.prefix[0], "--version"])
    return contender


def discover(
    directory: Path, *, peers: bool, runsc: list[str], network: str, variants: bool
) -> tuple[list[Contender], list[Missing]]:
    """All who can take part, the host first, and those who can't."""
    candidates = ours(variants)
    if peers:
        candidates += [Contender(name, prefix) for name, prefix in peer_candidates(runsc, network)]
    taking, missing = [Contender(NATIVE)], []
    for candidate in candidates:
        chosen = choose(candidate, directory)
        if isinstance(chosen, Missing):
            missing.append(chosen)
        else:
            taking.append(chosen)
    return taking, missing

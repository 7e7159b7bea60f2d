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
#: Tried in this order: runsc's own network needs iptables and root, and what it has without is a loopback.
RUNSC_FORMS = [["--network=sandbox"], ["--network=none"], ["--rootless", "--network=none"]]
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
    #: Why it isn't driven in the usual way, if so.
    note: str = ""

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
    """The names in `--platform A|B`, the default first; [''] when there is no such flag."""
    found = re.search(r"^\s*--platform[ =](\S+)(.*)$", help_text, re.MULTILINE)
    if not found or found[1].isupper():
        return [""]
    names = [name for name in found[1].split("|") if name]
    default = re.search(r"default:? (\w+)", found[2])
    if default and default[1] in names:
        names.sort(key=lambda name: name != default[1])
    return names


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


def runsc_forms(path: str, platform: str) -> list[list[str]]:
    forms = RUNSC_FORMS[:2] if os.geteuid() == 0 else RUNSC_FORMS
    return [[path, f"--platform={platform}", *form, "--ignore-cgroups", "do"] for form in forms]


def bwrap_prefix(path: str) -> list[str]:
    view = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    return [path, "--unshare-all", *view, "--bind", "{dir}", "{dir}", "--chdir", "{dir}"]


def peer_candidates(given: list[str]) -> list[tuple[str, list[list[str]]]]:
    """(name, ways to drive it); `given` are PATH[:PLATFORM,...] of runsc binaries."""
    found = []
    installed = shutil.which("runsc", path=ENVIRONMENT["PATH"])
    if installed:
        found.append(("runsc:ptrace", runsc_forms(installed, "ptrace")))
    for number, word in enumerate(given, 2):
        path, _, names = word.partition(":")
        for platform in (names or "systrap,ptrace").split(","):
            found.append((f"runsc{number}:{platform}", runsc_forms(os.path.abspath(path), platform)))
    for name in ("proot", "bwrap"):
        if path := shutil.which(name, path=ENVIRONMENT["PATH"]):
            found.append((name, [[path] if name == "proot" else bwrap_prefix(path)]))
        else:
            found.append((name, []))
    if not installed:
        found.append(("runsc:ptrace", []))
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


def choose(name: str, ways: list[list[str]], directory: Path) -> Contender | Missing:
    """The first of the ways that works; else why the first one doesn't."""
    reasons = []
    for way in ways:
        contender = Contender(name, way)
        reason = probe(contender, directory)
        if not reason:
            contender.version = first_line([way[0], "--version"])
            contender.note = reasons[0] if reasons else ""
            return contender
        reasons.append(reason)
    return Missing(name, reasons[0] if reasons else "not installed")


def discover(
    directory: Path, *, peers: bool, runsc: list[str], variants: bool
) -> tuple[list[Contender], list[Missing]]:
    """All who can take part, the host first, and those who can't."""
    taking, missing = [Contender(NATIVE)], []
    for contender in ours(variants):
        reason = probe(contender, directory)
        if reason:
            missing.append(Missing(contender.name, reason))
        else:
            taking.append(contender)
    for name, ways in peer_candidates(runsc) if peers else []:
        chosen = choose(name, ways, directory)
        if isinstance(chosen, Missing):
            missing.append(chosen)
        else:
            taking.append(chosen)
    return taking, missing

"""What every test needs to start the sandbox: as whom, by which command, and never longer than it may take.

The tests run the installed package, never the source tree: the tree has no compiled parts.  An
ordinary user may be unable to reach the interpreter, the virtual environment or the checkout (root's
home is often closed), so for that user the installed package is copied to a place that is open
to everybody and started by an interpreter that this user can execute.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

# `python -m pytest` puts the working directory first, and a checkout that was not built in place
# would hide the installed package.
ROOT = Path(__file__).resolve().parent.parent
BUILT_IN_PLACE = bool(list(ROOT.glob("sentry/_engine*.so")))
if not BUILT_IN_PLACE:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

TIMEOUT = 60.0
USER_ID = 1000
IS_ROOT = os.geteuid() == 0
#: The environment of every command: nothing of the caller's but the way to the programs.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
}


# Under CI each run tries the same examples: what is found at random is found by people, at their desk.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

# A background job of a shell ignores INT and QUIT, and hands that down to all that it starts.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def pytest_sessionfinish() -> None:
    """Files that unit tests left open end before the modules that they need."""
    files = sys.modules.get("sentry.fs.file")
    if files is not None:
        files.installed.clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of the tests that have one")


class Result:
    """How a command ended: `status` as a shell shows it (128+N for a signal), the output as bytes."""

    __slots__ = ("command", "status", "stderr", "stdout")

    def __init__(self, command: list[str], status: int, stdout: bytes, stderr: bytes) -> None:
        self.command = command
        self.status = status if status >= 0 else 128 - status
        self.stdout = stdout
        self.stderr = stderr

    @property
    def out(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        return self.stderr.decode(errors="replace")

    def __repr__(self) -> str:
        return f"{shlex.join(self.command)}\nstatus {self.status}\nstdout: {self.out}\nstderr: {self.err}"


def default_signals() -> None:
    """In a new child: a background job of a shell has these ignored, and would hand that on."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run_command(
    command: list[str],
    *,
    stdin: bytes | int | None = None,
    timeout: float = TIMEOUT,
    cwd: str | os.PathLike[str] | None = "/",
    env: dict[str, str] | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Result:
    """Runs `command` in a session of its own; when it takes too long all of the session is killed.

    `stdin` is what the command reads from a pipe, or a descriptor; by default /dev/null.
    """
    data = stdin if isinstance(stdin, bytes) else None
    source = subprocess.PIPE if data is not None else subprocess.DEVNULL if stdin is None else stdin
    process = subprocess.Popen(
        command,
        stdin=source,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        start_new_session=True,
        preexec_fn=default_signals,
    )
    try:
        out, err = process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired as held:
            # A process in a session of its own has the output open.
            out, err = held.stdout, held.stderr
        result = Result(command, process.returncode or 0, out or b"", err or b"")
        pytest.fail(f"still running after {timeout} s: {result!r}")
    return Result(command, process.returncode, out or b"", err or b"")


def as_user(command: list[str]) -> list[str]:
    """The command that runs `command` as an ordinary user, without any capability."""
    if not IS_ROOT:
        return command
    ids = [f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--inh-caps=-all"]
    return ["setpriv", *ids, "--", *command]


def sentry_command() -> list[str]:
    """The command that starts the sandbox as the user who runs the tests."""
    if given := os.environ.get("SENTRY_BIN"):
        return shlex.split(given)
    if BUILT_IN_PLACE:
        start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sentry.cli import main; main()"
        return [sys.executable, "-c", start]
    beside = Path(sys.executable).parent / "sentry"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "sentry"]


def reachable(python: str) -> bool:
    """Whether the ordinary user can execute `python`, and the package was built for its version."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    probe = "import sys, os; print('%d.%d' % sys.version_info[:2])"
    try:
        result = run_command(as_user([python, "-I", "-c", probe]), timeout=30)
    except OSError:
        return False
    return result.status == 0 and result.out.strip() == version


def open_python(target: Path) -> str:
    """An interpreter for the ordinary user; the installation is copied when there is no other way."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (
        os.path.realpath(sys.executable),
        f"/usr/bin/python{version}",
        f"/usr/local/bin/python{version}",
    ):
        if reachable(python):
            return python
    ignore = shutil.ignore_patterns(
        "test", "tests", "site-packages", "idlelib", "config-*", "__pycache__", "*.a"
    )
    home = target / "python"
    library = Path(sys.base_prefix, "lib")
    (home / "bin").mkdir(parents=True)
    shutil.copy2(os.path.realpath(sys.executable), home / "bin" / f"python{version}")
    shutil.copytree(library / f"python{version}", home / "lib" / f"python{version}", ignore=ignore)
    for shared in library.glob("libpython*.so*"):
        shutil.copy2(shared, home / "lib")
    return str(home / "bin" / f"python{version}")


def copy_package(target: Path) -> None:
    """Copies all that the installed package imports."""
    for name in ("sentry", "gofer", "cffi", "ptrace", "pyseccomp", "seccomp", "_cffi_backend"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, target / name)
        else:
            shutil.copy2(source, target)


def open_up(top: Path) -> None:
    for path in [top, *top.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """A directory that everybody can read, and which a sandbox sees under the same name."""
    path = Path(tempfile.mkdtemp(prefix="sentry-tests-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def user_sentry(shared_dir: Path) -> list[str]:
    """The command that starts the sandbox as an ordinary user (before `as_user`)."""
    if given := os.environ.get("SENTRY_USER_BIN"):
        return shlex.split(given)
    if not IS_ROOT:
        return sentry_command()
    target = shared_dir / "package"
    target.mkdir()
    python = open_python(target)
    copy_package(target)
    launcher = target / "sentry-run"
    launcher.write_text(
        f"#!{python} -I\nimport sys\n\nsys.path.insert(0, {str(target)!r})\n"
        "from sentry.cli import main\n\nmain()\n"
    )
    launcher.chmod(0o755)
    open_up(target)
    return [str(launcher)]


class Runner:
    """Starts commands and sandboxes as one of the two users."""

    def __init__(self, who: str, sentry: list[str], home: Path) -> None:
        self.who = who
        self.sentry = sentry
        #: A directory that this user can write to.
        self.home = home

    @property
    def is_root(self) -> bool:
        return self.who == "root"

    def command(self, command: list[str]) -> list[str]:
        return command if self.is_root else as_user(command)

    def native(self, *command: str, **how: object) -> Result:
        return run_command(self.command(list(command)), **how)  # type: ignore[arg-type]

    def argv(self, *command: str, flags: tuple[str, ...] | list[str] = ()) -> list[str]:
        return self.command([*self.sentry, "run", *flags, "--", *command])

    def run(
        self,
        *command: str,
        flags: tuple[str, ...] | list[str] = (),
        traceback_ok: bool = False,
        **how: object,
    ) -> Result:
        """`sentry run FLAGS -- COMMAND`; a traceback is an error unless the guest's own is awaited."""
        result = run_command(self.argv(*command, flags=flags), **how)  # type: ignore[arg-type]
        assert traceback_ok or "Traceback" not in result.err, result
        return result

    def cli(self, *arguments: str, **how: object) -> Result:
        result = run_command(self.command([*self.sentry, *arguments]), **how)  # type: ignore[arg-type]
        assert "Traceback" not in result.err, result
        return result


@pytest.fixture(scope="session", params=["root", "user"] if IS_ROOT else ["user"])
def runner(request: pytest.FixtureRequest, shared_dir: Path, user_sentry: list[str]) -> Runner:
    who = request.param
    home = shared_dir / f"home-{who}"
    home.mkdir()
    if IS_ROOT and who == "user":
        os.chown(home, USER_ID, USER_ID)
    return Runner(who, sentry_command() if who == "root" else user_sentry, home)


@pytest.fixture
def work_dir(runner: Runner) -> Path:
    """A fresh host directory that the runner's user owns."""
    path = Path(tempfile.mkdtemp(dir=runner.home))
    if IS_ROOT and not runner.is_root:
        os.chown(path, USER_ID, USER_ID)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def seeded() -> random.Random:
    """Random numbers; the seed is printed, and can be given by SENTRY_SEED."""
    seed = int(os.environ.get("SENTRY_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    print(f"SENTRY_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long")) or os.environ.get("SENTRY_LONG") == "1"

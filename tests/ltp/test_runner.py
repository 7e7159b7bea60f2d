"""The runner itself, with an LTP install made here: shell scripts that end as LTP's programs do."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ltp import areas, places, report, results, run, runtest, sysctl, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FAKES = {
    "good01": 'echo "good01.c:1: TPASS: fine"',
    "bad01": 'echo "bad01.c:7: TINFO: so"; echo "bad01.c:9: TFAIL: no\tgood at 0x7f00deadbeef"; exit 1',
    "unfit01": 'echo "unfit01.c:3: TCONF: not here"; exit 32',
    "broken01": 'echo "TBROK: oh"; echo "TFAIL: ah"; exit 3',
    "killed01": "kill -SEGV $$",
    "argument01": 'test "$1" = "two words" && test "$(pwd)" = /tmp && test -z "$(ls /tmp)"',
    "sandboxed01": "! uname -v | grep -q Sentry",
}


@pytest.fixture
def install() -> Iterator[Path]:
    """Not below /tmp, which tests see empty."""
    home = Path(tempfile.mkdtemp(dir="/var/tmp"))
    programs = home / "testcases" / "bin"
    programs.mkdir(parents=True)
    for name, text in FAKES.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    lists = home / "runtest"
    lists.mkdir()
    lines = [f"{name} {name}" for name in FAKES if name != "argument01"]
    lines += ["argument01 argument01 'two words'", "lost01 lost01", "swapon01 touch /ltp-swapon-was-run"]
    (lists / "syscalls").write_text("#comment\n\n" + "\n".join(lines) + "\n")
    yield home
    shutil.rmtree(home)


EXPECTED = {
    "good01": "passed",
    "bad01": "failed",
    "unfit01": "unfit",
    "broken01": "broken",
    "killed01": "killed",
    "argument01": "passed",
    "lost01": "missing",
}


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("#a comment\n\none one -x\n  two\ttwo; three 'a  b'\n")
    assert [(line.name, line.command) for line in runtest.read_list(path)] == [
        ("one", "one -x"),
        ("two", "two; three 'a  b'"),
    ]
    for text in ("one\n", "one a\none b\n"):
        path.write_text(text)
        with pytest.raises(ValueError):
            runtest.read_list(path)


def test_what_is_left_out() -> None:
    left_out = runtest.Filter()
    for name in ("swapon01", "reboot02", "move_pages12", "umount2_01", "fanotify25", "bpf_map01"):
        assert left_out.reason(name)
    for name in ("open01", "name_to_handle_at01", "clock_gettime01", "move01", "adjtimex", "xswapon01"):
        assert not left_out.reason(name)


def test_tables_are_whole() -> None:
    """Every row of the tables has its columns, and names what it means as the runner does."""
    for test, (area, reason) in report.read_known().items():
        assert area == areas.area(test), test
        assert len(reason) > 10, test
    assert all(len(reason) > 10 for _, reason in runtest.Filter().rules)


@pytest.mark.parametrize(
    "test, family, area",
    [
        ("fcntl14_64", "fcntl", "files"),
        ("setresuid04_16", "setresuid", "credentials"),
        ("setsid01", "setsid", "process"),
        ("getpgid02", "getpgid", "process"),
        ("msgstress01", "msgstress", "ipc"),
        ("switch01", "switch", "process"),
        ("rt_sigsuspend01", "rt_sigsuspend", "signal"),
        ("sched_setattr01", "sched_setattr", "scheduler"),
        ("mlock203", "mlock", "memory"),
        ("mlockall01", "mlockall", "memory"),
        ("sysfs03", "sysfs", "optional"),
        ("clock_nanosleep02", "clock_nanosleep", "time"),
    ],
)
def test_areas(test: str, family: str, area: str) -> None:
    assert (areas.family(test), areas.area(test)) == (family, area)


@pytest.mark.parametrize(
    "status, kind",
    [(0, "passed"), (1, "failed"), (3, "broken"), (4, "warned"), (32, "unfit"), (33, "failed"), (9, "failed"),
     (127, "missing"), (139, "killed"), (None, "timeout")],
)  # fmt: skip
def test_verdicts(status: int | None, kind: str) -> None:
    assert verdict.verdict(status, False) == kind


def test_a_sandbox_that_fails_is_no_test_that_is_killed() -> None:
    assert verdict.verdict(128, True) == "sandbox"
    assert verdict.verdict(128, False) == "killed"


def test_nothing_is_left_of_a_test_that_hangs(tmp_path: Path) -> None:
    start = time.monotonic()
    argv = ["sh", "-c", f"sleep 77 & echo $! > {tmp_path}/pid; wait"]
    assert places.execute(argv, dict(os.environ), tmp_path / "log", 0.5) is None
    assert time.monotonic() - start < 30
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_knobs_are_put_back(tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    knob, other = tmp_path / "vm" / "knob", tmp_path / "vm" / "drop_caches"
    knob.write_text("1\n")
    other.write_text("0\n")
    before = sysctl.snapshot(tmp_path)
    assert set(before) == {knob}
    knob.write_text("2\n")
    assert sysctl.restore(before) == [knob]
    assert knob.read_text() == "1\n"
    assert sysctl.restore(before) == []


def test_results_are_kept_and_sorted(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    table = results.Table(path, {"b": results.Result("b", "passed", "0", 1.0, "")})
    table.add(results.Result("a", "failed", "1", 2.0, "why"))
    table.add(results.Result("b", "failed", "1", 2.0, "again"))
    assert results.read(path)["b"].note == "again"
    table.sort([runtest.Line("a", ""), runtest.Line("b", "")])
    assert list(results.read(path)) == ["a", "b"]


def test_an_interrupted_second_run_keeps_what_the_first_one_found(tmp_path: Path) -> None:
    (tmp_path / "native.tsv").write_text(
        "\t".join(results.COLUMNS) + "\na\tfailed\t1\t0.1\twhy\nb\tpassed\t0\t0.1\t\n"
    )
    options = run.arguments(["--results", str(tmp_path), "--failing", "--only", "nothing", "report"])
    lines = [runtest.Line("a", "false"), runtest.Line("b", "true")]
    run.step(places.Native(places.environment(tmp_path, 1)), lines, options)
    assert list(results.read(tmp_path / "native.tsv")) == ["a", "b"]


def test_report() -> None:
    def table(**verdicts: str) -> dict[str, results.Result]:
        return {test: results.Result(test, kind, "0", 0.0, "note " + test) for test, kind in verdicts.items()}

    native = table(open01="passed", open02="passed", fork01="passed", io_setup01="unfit")
    sandbox = table(open01="passed", open02="failed", fork01="killed", io_setup01="passed")
    known = {"fork01": ("process", "reason"), "open01": ("files", "stale")}
    text = report.report(native, sandbox, known, table(open02="passed", fork01="failed"))
    assert (
        "2 pass natively only, 1 of them not in known.tsv:\n  open02 (files): failed: note open02\n" in text
    )
    assert "known.tsv lists, and they pass: open01" in text
    assert "better than before: 0; worse: 1\n  open02: failed: note open02\n" in text
    assert report.counts(native, sandbox, areas.area)[0] == ("files", 2, 2, 1, 1)
    assert report.lost(native, sandbox) == ["open02", "fork01"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, as most tests of LTP do")
def test_whole_run(install: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not shutil.which("unshare"):
        pytest.skip("unshare (util-linux) is not installed")
    where = tmp_path / "results"
    words = ["--ltp", str(install), "--results", str(where), "--timeout", "60", "-j", "2", "--resume"]
    assert run.main(words) == 1
    native, sandbox = (results.read(where / f"{name}.tsv") for name in ("native", "sandbox"))
    assert {test: result.verdict for test, result in native.items() if test in EXPECTED} == EXPECTED
    assert {test: result.verdict for test, result in sandbox.items() if test in EXPECTED} == EXPECTED
    assert native["bad01"].note == "bad01.c:9: TFAIL: no good at ADDR"
    assert "swapon01" not in native
    assert list(native) == [line.name for line in runtest.read_list(install / "runtest" / "syscalls")][:-1]
    capfd.readouterr()
    assert run.main([*words, "--only", "good.*"]) == 1  # nothing to do, and the same report
    text = capfd.readouterr().out
    assert "sandbox 1/" not in text
    assert "sandboxed01 (files): failed" in text


def test_refuses_to_start_without_an_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--ltp", str(tmp_path), "--results", str(tmp_path)])
    assert "prefix that LTP was installed to" in capsys.readouterr().err


def test_refuses_an_install_that_tests_could_not_see(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "testcases", "bin").mkdir(parents=True)
        with pytest.raises(SystemExit):
            run.main(["--ltp", folder, "--results", folder])
    assert "/tmp" in capsys.readouterr().err


def test_imports_as_a_script() -> None:
    assert str(Path(run.__file__).resolve().parents[1]) in sys.path

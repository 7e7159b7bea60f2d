"""The benchmark's own machinery: what it reads, how it judges, and that one failing row is only that."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks" / "__main__.py").exists():
    pytest.skip("not a source tree", allow_module_level=True)
sys.path.append(str(ROOT))

from benchmarks import plot, report, rows, startup  # noqa: E402
from benchmarks.contenders import Contender, Missing, platforms  # noqa: E402
from benchmarks.micro import Micro, read_line  # noqa: E402
from benchmarks.process import run  # noqa: E402
from benchmarks.programs import JOBS, Programs  # noqa: E402
from benchmarks.rows import Cell, Row, Target  # noqa: E402

OURS = Contender("sentry:trap", ["sentry"], ours=True)
PEER = Contender("runsc2:systrap", ["runsc"])
NATIVE = Contender("native")


def make(row: Row, **figures: list[float] | Cell) -> report.Report:
    """A report with one row; keys are native, ours, peer."""
    found = report.Report(
        [NATIVE, OURS, PEER], [], {"cpus": 2, "model": "m", "kernel": "k", "load": 0.0, "busy": ""}
    )
    for key, contender in (("native", NATIVE), ("ours", OURS), ("peer", PEER)):
        if key in figures:
            value = figures[key]
            found.add(row, contender, value if isinstance(value, Cell) else Cell(value))
    return found


@pytest.mark.parametrize(
    "line, expected",
    [
        ("stat ok 12.50 13", ("stat", [12.5, 13.0], "", "")),
        ("udp skip socket: Address family", ("udp", [], "", "socket: Address family")),
        ("stat fail stat(path): No such file", ("stat", [], "stat(path): No such file", "")),
    ],
)
def test_lines_of_the_program(line: str, expected: tuple[str, list[float], str, str]) -> None:
    pair = read_line(line)
    assert pair is not None
    name, cell = pair
    assert (name, cell.samples, cell.failed, cell.skipped) == expected


@pytest.mark.parametrize("line", ["", "stat", "stat ok", "stat ok many", "I0101 starting up", "creating ok"])
def test_other_lines(line: str) -> None:
    assert read_line(line) is None


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  --platform ptrace      how system calls are caught\n", ["ptrace"]),
        ("  --platform trap|ptrace how (default: trap)\n", ["trap", "ptrace"]),
        ("  --platform ptrace|trap how (default trap)\n", ["trap", "ptrace"]),
        ("  --platform NAME  how: trap (fast, the default) or ptrace\n  -h\n", ["trap", "ptrace"]),
        ("  --platform NAME  how: ptrace or trap (fast, the default)\n  -h\n", ["trap", "ptrace"]),
        ("  --platform NAME how\n", [""]),
        ("nothing\n", [""]),
    ],
)
def test_platforms_from_the_help(text: str, expected: list[str]) -> None:
    assert platforms(text) == expected


def test_figures() -> None:
    cell = Cell([4.0, 1.0, 3.0, 2.0])
    assert (cell.figure("least"), cell.figure("median")) == (1.0, 2.5)
    assert Cell([1.0], failed="later").figure("least") is None
    assert Cell().figure("least") is None


@pytest.mark.parametrize(
    "target, ours, peer, limit, met",
    [
        (Target(5.0), [50.0], None, 5.0, True),
        (Target(5.0), [50.1], None, 5.0, False),
        (Target(6.0, 40.0), [50.0], None, 6.0, False),
        (Target(peer="systrap", share=0.5), [50.0], [100.0], 5.0, True),
        (Target(peer="systrap", share=0.5), [50.0], None, None, None),
        (Target(4.5, peer="systrap", share=0.5, overhead=True), [50.0], None, 4.5, False),
        (Target(4.5, peer="systrap", share=0.5, overhead=True), [50.0], [110.0], 6.0, True),
        (None, [50.0], None, None, None),
        (Target(5.0), Cell([50.0], failed="boom"), None, 5.0, None),
    ],
)
def test_targets(
    target: Target | None, ours: Any, peer: list[float] | None, limit: float | None, met: bool | None
) -> None:
    row = Row("x", rows.OPERATIONS, target=target)
    found = make(row, native=[10.0], ours=ours, **({"peer": peer} if peer else {}))
    assert (found.limit(row), found.met(row)) == (limit, met)


def test_the_table_hides_nothing() -> None:
    row = Row("stat", rows.OPERATIONS, target=Target(5.0))
    found = make(row, native=[10.0], ours=Cell(failed="status 139: boom"), peer=Cell(skipped="no such thing"))
    found.missing.append(Missing("proot", "not installed"))
    text = report.table(found)
    assert "sentry:trap: stat: status 139: boom" in text
    assert "runsc2:systrap: stat: no such thing" in text
    assert "proot: not run: not installed" in text
    results = report.document(found)["rows"][0]["results"]
    assert results["sentry:trap"] == {"samples": [], "failed": "status 139: boom"}
    assert results["native"]["least"] == 10.0


def test_the_same_reason_everywhere_is_one_line() -> None:
    row = Row("stat", rows.OPERATIONS)
    cell = Cell(skipped="it rains")
    text = report.table(make(row, native=cell, ours=cell, peer=cell))
    assert "everywhere: stat: it rains" in text


def test_plot_is_xml_with_a_dot_a_figure() -> None:
    row = Row("stat<", rows.OPERATIONS, target=Target(5.0))
    drawn = ElementTree.fromstring(plot.draw(make(row, native=[10.0], ours=[40.0], peer=[100.0])))
    titles = [node.text for node in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["stat<, sentry:trap: 4.00×", "stat<, runsc2:systrap: 10.0×"]


def test_every_row_has_its_operation() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks" / "micro").glob("*.c"))
    there = re.findall(r'^    \{"(\w+)", op_?\w+,', sources, re.MULTILINE)
    there += re.findall(r'^    \{"(\w+)", cpu_loop,', sources, re.MULTILINE)
    wanted = [row.name for group in rows.OPERATION_GROUPS for row in group]
    assert sorted(wanted) == sorted(there)


def test_quick_rows_exist() -> None:
    names = {row.name for group in rows.OPERATION_GROUPS for row in group}
    assert names | {job.row.name for job in JOBS} | {rows.BIN_TRUE.name} >= rows.QUICK


def script(directory: Path, text: str) -> Path:
    path = directory / "program"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_a_death_fails_one_operation(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "shift 3\nfor op; do\n"
        '[ $op = bad ] && { echo "why" >&2; exit 9; }\n[ $op = no ] && { echo "no fail x: y"; exit 1; }\n'
        "echo $op ok 1 2\ndone\n",
    )
    cells = Micro(program, 1, 2, 20).measure(NATIVE, ["a", "bad", "b", "no", "c"])
    assert [cells[name].samples for name in ("a", "b", "c")] == [[1.0, 2.0]] * 3
    assert (cells["bad"].failed, cells["no"].failed) == ("status 9: why", "x: y")


def test_a_sandbox_that_never_works_is_given_up(tmp_path: Path) -> None:
    counter = tmp_path / "starts"
    program = script(tmp_path, f"echo x >>{counter}\nexit 1\n")
    cells = Micro(program, 1, 2, 20).measure(NATIVE, list("abcdefgh"))
    assert all(cells[name].failed for name in "abcdefgh")
    assert counter.read_text().count("x") == 2


def test_time_out_and_missing_command() -> None:
    outcome = run(["/bin/sleep", "1000"], timeout=0.1)
    assert outcome.timed_out and outcome.reason().startswith("still running after")
    assert run(["/no/such/program"]).reason() == "status 127: /no/such/program: No such file or directory"
    assert run(["/bin/sh", "-c", "kill -9 $$"]).status == 137


def test_nobody_is_given_a_device_of_the_host(tmp_path: Path) -> None:
    """runsc, started by root, changes the owner of its standard files."""
    devices = "import os, stat; print([fd for fd in range(3) if stat.S_ISCHR(os.fstat(fd).st_mode)])"
    assert run([sys.executable, "-c", devices]).out == "[]\n"
    assert run(["/bin/cat"], timeout=10).out == ""
    seen = tmp_path / "seen"
    shell = script(tmp_path, f'"{sys.executable}" -c "{devices}" >{seen}; echo up; read line\n')
    found = startup.idle_memory(Contender("one", [str(shell)]), tmp_path, 10.0)
    assert not any(cell.failed for cell in found.values())
    assert seen.read_text() == "[]\n"


def test_wrong_output_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    timer = script(tmp_path, 'shift\n"$@"; s=$?; echo elapsed 2000000; exit $s\n')
    programs = Programs(tmp_path, 20, lambda: timer, lambda contender: "no TCP")
    job = next(job for job in JOBS if job.row.name == "sh_loop_true")
    assert programs.measure(job, NATIVE).samples == [2.0]
    lie = script(tmp_path / "out", "echo 99; echo elapsed 1\n")
    liar = Contender("liar", [str(lie)])
    assert "unexpected output '99" in programs.measure(job, liar).failed
    redis = next(job for job in JOBS if job.needs_tcp)
    assert programs.measure(redis, NATIVE).skipped


def test_quick_run(tmp_path: Path) -> None:
    """The whole of it, on the host and in the sandbox; no figure is held against anything."""
    files = [tmp_path / "result.json", tmp_path / "plot.svg"]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-peers"]
    done = subprocess.run(
        [*command, "--json", files[0], "--plot", files[1]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(files[0].read_text())
    names = [contender["name"] for contender in found["contenders"]]
    assert names[0] == "native" and len(names) >= 2, done.stdout
    assert {row["name"] for row in found["rows"]} == rows.QUICK
    for row in found["rows"]:
        assert row["name"] in done.stdout
        for name in names:
            result = row["results"][name]
            assert "failed" not in result and "skipped" not in result, (row["name"], name, result)
            assert 0 < result["least"] <= result["median"] < math.inf
    ElementTree.parse(files[1])

"""Real programs: each prints what proves that it did its work, and is timed as a whole, inside its sandbox.

A job's script runs in a directory with its input in `in/` (made once, never changed) and an empty
`out/`. Sandboxes use their default view of the host's files, a writable layer in memory, where they
have one. What the host prints is what everybody has to print.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import NATIVE, Contender
from benchmarks.process import ENVIRONMENT, run
from benchmarks.rows import PROGRAMS, Cell, Row, half_overhead

WORDS = ["kernel", "signal", "process", "memory", "thread", "needle", "mount", "socket", "inode", "epoll"]


@dataclass(frozen=True)
class Job:
    row: Row
    script: str
    #: A regular expression for all of the host's output.
    expect: str
    prepare: Callable[[Path], None] = lambda directory: None
    tools: tuple[str, ...] = ()
    #: Whether everybody has to print the same as the host; else all have to match `expect`.
    exact: bool = True
    needs_tcp: bool = False


def words(count: int, seed: int) -> str:
    chance = random.Random(seed)
    return "".join(f"{chance.choice(WORDS)} {chance.randrange(1000)}\n" for _ in range(count))


def small_tree(directory: Path) -> None:
    """300 small files in 10 directories."""
    for number in range(300):
        path = directory / f"d{number % 10}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(words(20, number))


def large_tree(directory: Path) -> None:
    """2,000 files in 100 directories, 2 MiB in all."""
    for number in range(2000):
        path = directory / f"a{number % 10}" / f"b{number % 100}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words(80, number))


def modules(directory: Path) -> None:
    for number in range(100):
        functions = [
            f"def f{i}(x, y={i}):\n    total = [x * k + y for k in range({i + 3})]\n    return sum(total)\n\n"
            for i in range(20)
        ]
        (directory / f"module{number}.py").write_text('"""A module."""\n\n' + "\n".join(functions))


def c_file(directory: Path) -> None:
    functions = [
        f"static int f{i}(int x)\n{{\n    int s = {i};\n    for (int k = 0; k < x; k++)\n"
        f"        s = s * 31 + (k ^ {i});\n    return s;\n}}\n"
        for i in range(50)
    ]
    calls = "".join(f"    sum += (unsigned)f{i}({i + 5});\n" for i in range(50))
    main = f'int main(void)\n{{\n    unsigned sum = 0;\n{calls}    printf("%u\\n", sum);\n    return 0;\n}}\n'
    (directory / "program.c").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n" + "".join(functions) + main
    )


def text_file(directory: Path) -> None:
    (directory / "words").write_text(words(500, 1))


SQLITE = """
import sqlite3
base = sqlite3.connect("out/base")
base.execute("create table t (k integer primary key, v text, n integer)")
for first in range(0, 2000, 100):
    with base:
        base.executemany("insert into t values (?, ?, ?)",
                         [(k, "value %d" % k, k % 97) for k in range(first, first + 100)])
total = sum(base.execute("select n from t where k = ?", (k,)).fetchone()[0] for k in range(0, 2000, 2))
print(total, *base.execute("select count(*), sum(n), max(v) from t").fetchone())
"""


def sqlite_script(directory: Path) -> None:
    (directory / "base.py").write_text(SQLITE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_files(directory: Path) -> None:
    (directory / "port").write_text(f"{free_port()}\n")


def nginx_files(directory: Path) -> None:
    port = free_port()
    (directory / "port").write_text(f"{port}\n")
    (directory / "page").write_text(words(300, 2))
    (directory / "nginx.conf").write_text(
        "daemon on;\nuser root;\nworker_processes 1;\npid out/pid;\nerror_log stderr crit;\n"
        "events { worker_connections 64; }\n"
        "http { access_log off; client_body_temp_path out/b; proxy_temp_path out/p;\n"
        " fastcgi_temp_path out/f; uwsgi_temp_path out/u; scgi_temp_path out/s;\n"
        f" server {{ listen 127.0.0.1:{port}; root in; }} }}\n"
    )


LOOP = "i=0; while [ $i -lt 100 ]; do /bin/true || exit 1; i=$((i+1)); done; echo $i"
PIPELINES = (
    "i=0; while [ $i -lt 20 ]; do"
    " cat in/words | tr a-z A-Z | sort | uniq -c | sort -rn | head -n 3 | cksum; i=$((i+1)); done"
)
GIT = (
    "export HOME=$PWD GIT_DIR=$PWD/out/repo GIT_WORK_TREE=$PWD/in GIT_CONFIG_NOSYSTEM=1"
    " GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_AUTHOR_DATE='1600000000 +0000'"
    " GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_COMMITTER_DATE='1600000000 +0000';"
    " git init -q 2>/dev/null && git add . && git commit -q -m all &&"
    " git ls-files | wc -l && git rev-parse HEAD"
)
TAR = "tar cf out/all.tar in && mkdir out/x && tar xf out/all.tar -C out/x && find out/x -type f | wc -l"
REDIS = (
    "p=$(cat in/port); redis-server --port $p --bind 127.0.0.1 --save '' --appendonly no --dir out >out/log &"
    " i=0; until redis-cli -p $p ping 2>/dev/null | grep -q PONG; do i=$((i+1));"
    " [ $i -lt 100 ] || exit 1; sleep 0.05; done;"
    " redis-benchmark -p $p -n 2000 -c 10 -t set,get --csv | tr -d '\"' |"
    " grep -E '^(SET|GET),' | cut -d, -f1;"
    " redis-cli -p $p shutdown nosave; wait"
)
NGINX = (
    'p=$(cat in/port); nginx -p "$PWD/" -c "$PWD/in/nginx.conf" || exit 1;'
    ' curl -sS --retry 20 --retry-connrefused "http://127.0.0.1:$p/page?[1-200]" | wc -c;'
    ' nginx -p "$PWD/" -c "$PWD/in/nginx.conf" -s stop'
)


def program(name: str, systrap: float | None = None) -> Row:
    return Row(name, PROGRAMS, "ms", "median", half_overhead(systrap))


JOBS = [
    Job(program("sh_loop_true", 8.0), LOOP, r"100\n"),
    Job(program("sh_pipelines", 11.0), PIPELINES, r"(\d+ \d+\n){20}", text_file),
    Job(program("python3_start", 3.7), "python3 -c 'print(6 * 7)'", r"42\n", tools=("python3",)),
    Job(
        program("compileall"),
        "cp -r in out/tree && python3 -m compileall -q out/tree && find out -name '*.pyc' | wc -l",
        r"100\n",
        modules,
        ("python3",),
    ),
    Job(program("git_commit_300", 4.1), GIT, r"300\n[0-9a-f]{40}\n", small_tree, ("git",)),
    Job(program("gcc_O2"), "gcc -O2 -o out/program in/program.c && out/program", r"\d+\n", c_file, ("gcc",)),
    Job(program("find_tree"), r"find in -type f -printf '%s %p\n' | sort | cksum", r"\d+ \d+\n", large_tree),
    Job(program("grep_r", 4.2), "grep -rh needle in | wc -l", r"\d+\n", large_tree, ("grep",)),
    Job(program("tar_c_x"), TAR, r"2000\n", large_tree, ("tar",)),
    Job(
        program("sqlite_2000", 4.0),
        "python3 in/base.py",
        r"\d+ 2000 \d+ value 999\n",
        sqlite_script,
        ("python3",),
    ),
    Job(
        program("redis_benchmark"),
        REDIS,
        r"SET\nGET\n",
        redis_files,
        ("redis-server", "redis-cli", "redis-benchmark"),
        exact=False,
        needs_tcp=True,
    ),
    Job(program("nginx_curl_200"), NGINX, r"\d{6,}\n", nginx_files, ("nginx", "curl"), needs_tcp=True),
]


class Programs:
    """Runs jobs below `directory`; `tcp_missing` says why a contender has no loopback TCP, or nothing.

    `timer` makes the program that measures from within, at the first use.
    """

    def __init__(
        self,
        directory: Path,
        timeout: float,
        timer: Callable[[], Path],
        tcp_missing: Callable[[Contender], str],
    ) -> None:
        self.directory = directory
        self.timeout = timeout
        self.timer = timer
        self.tcp_missing = tcp_missing
        self.expected: dict[str, str] = {}

    def obstacle(self, job: Job, contender: Contender) -> str:
        for tool in job.tools:
            if not shutil.which(tool, path=ENVIRONMENT["PATH"]):
                return f"{tool} is not installed"
        return self.tcp_missing(contender) if job.needs_tcp else ""

    def place(self, job: Job) -> Path:
        """The job's directory, with its input and an empty out/."""
        place = self.directory / job.row.name
        if not place.exists():
            (place / "in").mkdir(parents=True)
            job.prepare(place / "in")
        shutil.rmtree(place / "out", ignore_errors=True)
        (place / "out").mkdir()
        return place

    def measure(self, job: Job, contender: Contender) -> Cell:
        if reason := self.obstacle(job, contender):
            return Cell(skipped=reason)
        place = self.place(job)
        command = contender.argv([str(self.timer()), "time", "/bin/sh", "-c", job.script], place)
        outcome = run(command, cwd=place, timeout=self.timeout, env=contender.env)
        if outcome.status != 0:
            return Cell(failed=outcome.reason())
        found = re.fullmatch(r"(.*\n|)elapsed (\d+)\n", outcome.out, re.DOTALL)
        if not found:
            return Cell(failed="it ended without a time")
        if wrong := self.wrong(job, contender, found[1]):
            return Cell(failed=f"{wrong}; {outcome.reason()}")
        return Cell([int(found[2]) / 1e6])

    def wrong(self, job: Job, contender: Contender, out: str) -> str:
        """What is wrong with this output, or nothing."""
        if not re.fullmatch(job.expect, out):
            return f"unexpected output {out[-60:]!r}"
        if contender.name == NATIVE:
            self.expected.setdefault(job.row.name, out)
        if job.exact and out != self.expected.get(job.row.name, out):
            return f"not the host's output: {out[-60:]!r}"
        return ""

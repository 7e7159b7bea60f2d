"""PostgreSQL: its processes, shared memory, latches by signals, locks, and a Unix socket."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from programs.conftest import Sandbox

VERSIONS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))

SCRIPT = """
export PATH=$1:$PATH PGHOST=/tmp
cd /tmp
initdb -D data -A trust -N -U me > log || { cat log; exit 1; }
pg_ctl -D data -w -l log -o "-k /tmp -c listen_addresses=''" start > /dev/null || { cat log; exit 1; }
createdb -U me bench
pgbench -U me -i -q bench 2> /dev/null
pgbench -U me -n -c 4 -j 2 -t 25 bench
psql -U me -At bench -c 'select sum(abalance) from pgbench_accounts' > accounts
psql -U me -At bench -c "select count(*), sum(delta) = $(cat accounts) from pgbench_history"
pg_ctl -D data -w stop
"""


@pytest.mark.skipif(not VERSIONS, reason="not installed: postgresql")
def test_pgbench(sandbox: Sandbox) -> None:
    user = ("-u", "1000:1000", "--cwd", "/tmp") if sandbox.runner.is_root else ()
    binaries = str(VERSIONS[-1].parent)
    out = sandbox.run("bash", "-ec", SCRIPT, "pg", binaries, flags=user, timeout=240).out
    assert "number of transactions actually processed: 100/100" in out
    assert "number of failed transactions: 0 " in out
    assert "\n100|t\n" in out and "server stopped" in out
    # A lost wake-up would show: the lock manager looks again only after a second.
    latency = re.search(r"latency average = ([\d.]+) ms", out)
    assert latency is not None and float(latency.group(1)) < 900

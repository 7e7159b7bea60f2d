"""Programs that talk over Unix sockets, as whole: servers, forks, descriptors that are passed on."""

from __future__ import annotations

import os
import shutil

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

ASYNCIO = """
import asyncio
async def main():
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    server = await asyncio.start_unix_server(serve, "/tmp/a")
    reader, writer = await asyncio.open_unix_connection("/tmp/a")
    writer.write(b"asyncio\\n")
    print(await reader.read())
    server.close()
    process = await asyncio.create_subprocess_exec("echo", "sub", stdout=-1)
    print((await process.communicate())[0])
asyncio.run(main())
"""
MANAGER = """
import multiprocessing
if __name__ == "__main__":
    manager = multiprocessing.Manager()
    numbers = manager.list()
    workers = [multiprocessing.Process(target=numbers.append, args=(i,)) for i in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    print(sorted(numbers))
    manager.shutdown()
"""
DESCRIPTORS = """
import os, socket
near, far = socket.socketpair()
r, w = os.pipe()
if os.fork() == 0:
    message, fds, flags, address = socket.recv_fds(far, 100, 4)
    os.write(fds[0], message)
    os._exit(0)
socket.send_fds(near, [b"through"], [w])
print(os.read(r, 100), os.wait()[1])
"""
NODE = """
const child = require("child_process").fork(__filename + ".child");
child.on("message", m => console.log(JSON.stringify(m)));
child.on("exit", code => console.log("exit", code));
const server = require("net").createServer(s => child.send({socket: 1}, s)).listen("/tmp/n", () => {
    const client = require("net").connect("/tmp/n");
    client.on("data", data => console.log(data.toString()));
    client.on("close", () => { child.send({quit: 1}); server.close(); });
});
"""
NODE_CHILD = """
process.on("message", (m, handle) => {
    if (handle) handle.end("from the child");
    process.send({got: m});
    if (m.quit) process.disconnect();
});
"""
POSTGRES = """
cd /tmp && mkdir data && initdb -D data -A trust >/dev/null 2>&1 &&
pg_ctl -D data -o "-k /tmp -c listen_addresses=''" -l log -w start >/dev/null || exit 1
psql -h /tmp -d postgres -Atc "select 6 * 7"
pgbench -h /tmp -i postgres >/dev/null 2>&1
pgbench -h /tmp -c 4 -t 20 postgres 2>/dev/null | grep processed
pg_ctl -D data -m fast stop
"""


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"the host has no {program}")


def script(runner: Runner, *command: str, expected: str, timeout: float = 60.0) -> None:
    result = runner.run(*command, timeout=timeout)
    assert (result.status, result.out) == (0, expected), result


@pytest.mark.parametrize(
    "text, expected",
    [
        (ASYNCIO, "b'ASYNCIO\\n'\nb'sub\\n'\n"),
        (MANAGER, "[0, 1, 2, 3]\n"),
        (DESCRIPTORS, "b'through' 0\n"),
    ],
    ids=["asyncio", "manager", "descriptors"],
)
def test_python(runner: Runner, text: str, expected: str) -> None:
    need("python3")
    script(runner, "python3", "-c", text, expected=expected)


def test_node(runner: Runner) -> None:
    need("node")
    shell = f"cat >/tmp/n.js <<'E'\n{NODE}E\ncat >/tmp/n.js.child <<'E'\n{NODE_CHILD}E\nnode /tmp/n.js | sort"
    expected = 'exit 0\nfrom the child\n{"got":{"quit":1}}\n{"got":{"socket":1}}\n'
    script(runner, "sh", "-c", shell, expected=expected)


def test_ssh_agent(runner: Runner) -> None:
    need("ssh-agent", "ssh-add")
    shell = "eval $(ssh-agent -s) >/dev/null; ssh-add -l; kill $SSH_AGENT_PID"
    script(runner, "bash", "-c", shell, expected="The agent has no identities.\n")


def test_dbus(runner: Runner) -> None:
    need("dbus-daemon", "dbus-send")
    shell = (
        "export DBUS_SESSION_BUS_ADDRESS=$("
        "dbus-daemon --session --print-address --fork --nopidfile 2>/dev/null);"
        " dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames"
        " | grep -c 'string \"org.freedesktop.DBus\"'"
    )
    script(runner, "sh", "-c", shell, expected="1\n")


def test_postgresql(runner: Runner) -> None:
    need("initdb", "pg_ctl", "psql", "pgbench")
    if os.geteuid() == 0 and runner.is_root:
        pytest.skip("refuses to run as root")
    result = runner.run("sh", "-c", POSTGRES, timeout=120.0)
    assert result.status == 0 and result.out.startswith("42\n") and "80/80" in result.out, result

"""What the machine is, and whether somebody else is using it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

BUSY_SHARE = 0.15


def busy_share(seconds: float = 0.3) -> float:
    """The share of all CPUs in use, while nothing of ours runs; time stolen by the hypervisor counts."""

    def now() -> tuple[int, int]:
        words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(words), words[3] + words[4]

    total, idle = now()
    time.sleep(seconds)
    total_after, idle_after = now()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def describe() -> dict[str, Any]:
    model = "unknown model"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    cpus = len(os.sched_getaffinity(0))
    return {
        "cpus": cpus,
        "model": model,
        "kernel": os.uname().release,
        "load": load,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "busy": f"load {load:.2f} on {cpus} CPUs" if load > cpus * 0.5 else "",
    }


def watch(machine: dict[str, Any]) -> None:
    """Called before each round: remembers the first time that the machine was found busy."""
    share = busy_share()
    machine.setdefault("busy_shares", []).append(round(share, 3))
    if share > BUSY_SHARE and not machine["busy"]:
        machine["busy"] = f"{share:.0%} of its CPUs in use between two measurements"

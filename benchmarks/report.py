"""What was found, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import NATIVE, Contender, Missing
from benchmarks.rows import Cell, Row, Target

HEADS = {
    "operations": "Operations: least time per operation",
    "start-up": "Start-up: median, start to finish",
    "memory": "Memory of an idle shell and its sandbox: sum over all processes",
    "programs": "Programs: median, start to finish, inside a sandbox that has started",
}


@dataclass
class Report:
    contenders: list[Contender]
    missing: list[Missing]
    machine: dict[str, Any]
    rounds: int = 0
    rows: list[Row] = field(default_factory=list)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    def add(self, row: Row, contender: Contender, cell: Cell) -> None:
        if row not in self.rows:
            self.rows.append(row)
        known = self.cells.setdefault((row.name, contender.name), Cell())
        known.samples += cell.samples
        known.failed = known.failed or cell.failed
        known.skipped = known.skipped or cell.skipped

    def cell(self, row: Row, name: str) -> Cell:
        return self.cells.get((row.name, name), Cell())

    def ratio(self, row: Row, name: str) -> float | None:
        base, figure = self.cell(row, NATIVE).figure(row.by), self.cell(row, name).figure(row.by)
        if not row.has_ratio or not base or figure is None:
            return None
        return figure / base

    def judged(self) -> Contender | None:
        """Whose figures are held against the targets: our own first one."""
        return next((contender for contender in self.contenders if contender.ours), None)

    def limit(self, row: Row) -> float | None:
        """The target as a ratio to native, where there is one."""
        target = row.target
        if target is None:
            return None
        for contender in self.contenders if target.peer else []:
            measured = self.ratio(row, contender.name)
            if contender.ours or target.peer not in contender.name or measured is None:
                continue
            return 1 + (measured - 1) * target.share if target.overhead else measured * target.share
        return target.ratio

    def met(self, row: Row) -> bool | None:
        judged = self.judged()
        figure = self.cell(row, judged.name).figure(row.by) if judged else None
        if judged is None or row.target is None or figure is None:
            return None
        ratio, limit, value = self.ratio(row, judged.name), self.limit(row), row.target.value
        verdicts = []
        if limit is not None and ratio is not None:
            verdicts.append(ratio <= limit)
        if value is not None:
            verdicts.append(figure <= value)
        return all(verdicts) if verdicts else None


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def amount(value: float, unit: str) -> str:
    if unit == "ns":
        for size, name in ((1e6, "ms"), (1e3, "µs")):
            if value >= size:
                return f"{number(value / size)} {name}"
    return f"{number(value)} {unit}"


def target_text(report: Report, row: Row) -> str:
    target: Target | None = row.target
    if target is None:
        return ""
    limit = report.limit(row)
    parts = [f"{number(limit)}×"] if limit is not None else []
    if target.value is not None:
        parts.append(amount(target.value, row.unit))
    return ", ".join(parts)


def cell_text(report: Report, row: Row, name: str) -> str:
    cell = report.cell(row, name)
    figure = cell.figure(row.by)
    if figure is None:
        return "failed" if cell.failed else "skipped" if cell.skipped else ""
    ratio = report.ratio(row, name)
    return amount(figure, row.unit) + (
        f" {number(ratio):>5}×" if ratio is not None and name != NATIVE else ""
    )


def aligned(line: list[str], widths: list[int]) -> str:
    first, *others = (f"{word:>{width}}" for word, width in zip(line, widths, strict=True))
    return "  ".join([f"{first.strip():<{widths[0]}}", *others]).rstrip()


def section(report: Report, name: str) -> list[str]:
    rows = [row for row in report.rows if row.section == name]
    if not rows:
        return []
    names = [contender.name for contender in report.contenders]
    judged = report.judged()
    has_target = judged is not None and any(row.target for row in rows)
    lines = [["", *names, *(["target", "met"] if has_target else [])]]
    for row in rows:
        line = [row.name, *(cell_text(report, row, name) for name in names)]
        if has_target:
            met = report.met(row)
            line += [target_text(report, row), "" if met is None else "yes" if met else "NO"]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [HEADS[name], "", *(aligned(line, widths) for line in lines), ""]


def troubles(report: Report, kind: str) -> list[str]:
    """`kind` is "failed" or "skipped"; the same reason for several rows is one line."""
    names: dict[tuple[str, str], list[str]] = {}
    for (row, name), cell in report.cells.items():
        if reason := getattr(cell, kind):
            names.setdefault((row, reason), []).append(name)
    rows: dict[tuple[str, str], list[str]] = {}
    for (row, reason), who in names.items():
        everybody = len(who) == len(report.contenders)
        rows.setdefault(("everywhere" if everybody else ", ".join(who), reason), []).append(row)
    lines = [f"  {who}: {', '.join(found)}: {reason}" for (who, reason), found in rows.items()]
    return [f"{kind.capitalize()}:", *lines, ""] if lines else []


def summary(report: Report) -> list[str]:
    verdicts = [verdict for row in report.rows if (verdict := report.met(row)) is not None]
    judged = report.judged()
    if not verdicts or judged is None:
        return []
    return [f"{judged.name} meets {sum(verdicts)} of {len(verdicts)} targets that could be judged."]


def machine_lines(report: Report) -> list[str]:
    machine = report.machine
    lines = [
        f"{machine['cpus']} CPUs, {machine['model']}, Linux {machine['kernel']}; "
        f"load {machine['load']:.2f} at the start; {report.rounds} round(s)"
    ]
    if machine["busy"]:
        lines.append(f"NOTE: the machine is busy ({machine['busy']}): the figures are not worth much.")
    lines += [f"  {contender.name}: {contender.shown}" for contender in report.contenders[1:]]
    lines += [f"  {missing.name}: not run: {missing.reason}" for missing in report.missing]
    if judged := report.judged():
        lines.append(f"Targets are those of {judged.name}; ratios are to native.")
    return [*lines, ""]


def table(report: Report) -> str:
    lines = machine_lines(report)
    for name in HEADS:
        lines += section(report, name)
    return "\n".join([*lines, *troubles(report, "failed"), *troubles(report, "skipped"), *summary(report)])


def result(report: Report, row: Row, name: str) -> dict[str, Any]:
    cell = report.cell(row, name)
    found: dict[str, Any] = {"samples": cell.samples}
    if cell.failed or cell.skipped:
        found.update({"failed": cell.failed} if cell.failed else {"skipped": cell.skipped})
    else:
        found.update(least=cell.figure("least"), median=cell.figure("median"), ratio=report.ratio(row, name))
    return found


def document(report: Report) -> dict[str, Any]:
    rows = []
    for row in report.rows:
        names = [one.name for one in report.contenders if (row.name, one.name) in report.cells]
        rows.append(
            {
                "name": row.name,
                "section": row.section,
                "unit": row.unit,
                "by": row.by,
                "target": None
                if row.target is None
                else {"ratio": report.limit(row), "value": row.target.value, "met": report.met(row)},
                "results": {name: result(report, row, name) for name in names},
            }
        )
    judged = report.judged()
    return {
        "version": 1,
        "machine": report.machine,
        "rounds": report.rounds,
        "judged": judged.name if judged else None,
        "contenders": [
            {"name": one.name, "command": one.shown, "version": one.version} for one in report.contenders
        ],
        "missing": [{"name": one.name, "reason": one.reason} for one in report.missing],
        "rows": rows,
    }

"""The answer for people: a line a node, the ranks' binding, and why a node is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcvideo.slurm.preflight.disk import Disk
from hpcvideo.slurm.preflight.facts import Node, RankFacts, core_list
from hpcvideo.slurm.preflight.judgement import Measured, Verdict

_HEAD = (
    "node", "ranks", "GPUs", "cores", "free memory", "run MB/s", "local MB/s", "clock ms", "inside GB/s", "pair GB/s", ""
)  # fmt: skip


def table(
    expected: Sequence[str],
    ranks: Mapping[str, Sequence[RankFacts]],
    measured: Mapping[str, Measured],
    ring: tuple[int, float] | None,
    verdict: Verdict,
) -> str:
    """Lines of text. ring: (ranks in it, bytes a second), None where there was none.

    Disks as writing/reading speed, pairs as slowest..fastest partner; `-` stands for what was not measured.
    """
    rows: list[tuple[str, ...]] = [_HEAD]
    for name in expected:
        state = "bad" if name in verdict.bad else "good"
        if name not in ranks:
            rows.append((name, "0", *["-"] * 8, state))
            continue
        facts, own = ranks[name], measured.get(name)
        node = next((one.of_node for one in facts if one.of_node is not None), None)
        rows.append((
            name,
            str(len(facts)),
            str(len({gpu for one in facts for gpu in one.visible_gpus})) + ("" if facts[0].gpu else " unused"),
            str(len({core for one in facts for core in one.cores})),
            "-" if node is None else f"{node.memory_free_bytes / 1e9:.1f} GB",
            _disk(node, "run"),
            _disk(node, "local"),
            "-" if own is None else f"{1000 * own.clock_offset_seconds:+.0f}",
            "-" if own is None or own.inside is None else f"{own.inside / 1e9:.3g}",
            _pairs(own),
            state,
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if ring is not None:
        lines.append(f"ring: {ring[0]} ranks all-reduce at {ring[1] / 1e9:.3g} GB/s")
    lines += binding_lines(expected, ranks)
    lines += [f"warning: {text}" for text in verdict.warnings]
    lines += [f"bad: {name}: {'; '.join(why)}" for name, why in verdict.bad.items()]
    lines += [f"failed: {text}" for text in verdict.failed]
    return "".join(f"{line}\n" for line in lines)


def binding_lines(expected: Sequence[str], ranks: Mapping[str, Sequence[RankFacts]]) -> list[str]:
    """Cores, NUMA domain, GPU and network card of each rank of a node; nodes that are bound alike are told once."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in expected:
        if name in ranks:
            alike.setdefault(tuple(_binding(facts) for facts in ranks[name]), []).append(name)
    lines = []
    for bindings, names in alike.items():
        others = f" and {len(names) - 1} like it" if len(names) > 1 else ""
        lines.append(f"binding of {names[0]}{others}:")
        lines += [f"  {text}" for text in bindings]
    return lines


def _binding(facts: RankFacts) -> str:
    domains = ",".join(map(str, facts.core_numa)) or "unknown"
    text = f"local rank {facts.local_rank}: cores {core_list(facts.cores)} (NUMA {domains})"
    if facts.gpu is not None:
        text += f", {facts.gpu.name} (NUMA {'unknown' if facts.gpu.numa is None else facts.gpu.numa})"
    elif facts.visible_gpus:
        text += ", no GPU used"
    if facts.card is not None:
        text += f", card {facts.card} (NUMA {'unknown' if facts.card_numa is None else facts.card_numa})"
    return text


def _disk(node: Node | None, name: str) -> str:
    disk: Disk | None = None if node is None else node.disks.get(name)
    if disk is None or disk.write_bytes_per_second is None or disk.read_bytes_per_second is None:
        return "-"
    return f"{disk.write_bytes_per_second / 1e6:.0f}/{disk.read_bytes_per_second / 1e6:.0f}"


def _pairs(own: Measured | None) -> str:
    speeds = [] if own is None else [speed for speed in own.pairs.values() if speed is not None]
    if not speeds:
        return "-"
    slowest, fastest = min(speeds) / 1e9, max(speeds) / 1e9
    return f"{fastest:.3g}" if len(speeds) == 1 else f"{slowest:.3g}..{fastest:.3g}"

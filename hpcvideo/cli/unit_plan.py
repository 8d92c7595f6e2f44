"""What `hpcvideo plan` prints of a method that deals units to ranks: the layout at every scale, and the stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from hpcvideo.cli.progress import FILE_WIDTH

if TYPE_CHECKING:
    from hpcvideo.config import RunConfig
    from hpcvideo.distributed.topology import StageGrid
    from hpcvideo.methods.pipeline.plan import PipelinePlan
    from hpcvideo.scaling.model.system import System
    from hpcvideo.scaling.planning.unit_schedule import UnitClip


def show_unit_plan(config: RunConfig, system: System, nodes: Sequence[int], ranks_per_node: int) -> UnitClip:
    """Print where stages and replicas lie and what leaves a node, at each number of nodes, and the stages of the largest.

    Gives the clip of the largest, which may be drawn. Nothing is run: stages are balanced by counted operations. Raises
    InputError as scaling.planning.unit_schedule.simulate_units.
    """
    from hpcvideo.methods.batch_split import split_over
    from hpcvideo.scaling.planning.unit_schedule import simulate_units
    from hpcvideo.training.stages import plan_stages

    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    table = _table("nodes", "replicas", "on nodes each", "neighbours are", "clips at once", "steps", "clip", "out of a node")
    clip = simulate_units(config, system, max(nodes), ranks_per_node)
    for count in nodes:
        split = split_over(config, count * ranks_per_node)
        plan = plan_stages(config, split, ranks_per_node)
        run = simulate_units(config, system, count, ranks_per_node).run
        table.add_row(
            str(count), str(plan.grid.replicas), _spread(plan.grid), "stages" if plan.grid.stages_adjacent else "replicas",
            str(split.micro_batch), str(run.steps), f"{run.clip_seconds:.3g} s", _bytes(plan.busiest_node_bytes),
        )  # fmt: skip
        if count == max(nodes):
            largest = plan
    console.print(f"[bold]{config.name} on {system.name}[/]: method {config.method.name}, {largest.grid.stages} stages")
    console.print(table)
    console.print(_stages(largest, clip))
    for line in _notes(largest, clip):
        console.print(f"- {line}", highlight=False)
    return clip


def _stages(plan: PipelinePlan, clip: UnitClip) -> Table:
    from hpcvideo.methods.pipeline.plan import stage_spans

    table = _table("stage", "units", "ranks", "cost", "idle", "parameters", "memory", "exchanges a step with stage")
    rows = zip(plan.stages, stage_spans(plan.grid), clip.held, clip.run.bubbles, strict=True)
    for number, (stage, span, held, idle) in enumerate(rows):
        sent = [
            f"{high if low == number else low}: {_bytes(size)}"
            for (low, high), size in sorted(plan.handed_on.items())
            if number in (low, high)
        ]
        table.add_row(
            str(number), held, span, f"{stage.cost_share:.1%}", f"{idle:.0%}", f"{stage.parameter_count:,}",
            _bytes(stage.memory_bytes), ", ".join(sent) or "none",
        )  # fmt: skip
    return table


def _notes(plan: PipelinePlan, clip: UnitClip) -> list[str]:
    grid = plan.grid
    lines = [
        f"balance of the stages {plan.balance:.1%}, counted; method.balance: measured times units when training starts",
        "clip and idle: from counted operations and message bytes alone; --timeline FILE.svg draws it",
        "out of a node: what the busiest node sends to others in a step of the trainer, messages and gradients",
        "`hpcvideo train CONFIG --dry-run --ranks N --ranks-per-node M --placement FILE.svg` draws every rank",
    ]
    apart = sum(len(_nodes(grid, replica)) > 1 for replica in range(grid.replicas))
    if apart and grid.stages_adjacent and grid.stages <= grid.ranks_per_node:
        lines.append(
            f"{apart} of {grid.replicas} replicas lie on more than one node: method.stages = {grid.stages} does not divide "
            f"{grid.ranks_per_node} ranks a node"
        )
    return lines


def _spread(grid: StageGrid) -> str:
    return " or ".join(str(count) for count in sorted({len(_nodes(grid, replica)) for replica in range(grid.replicas)}))


def _nodes(grid: StageGrid, replica: int) -> set[int]:
    return {grid.node(rank) for rank in grid.replica_ranks(replica)}


def _bytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        is_text = title in ("units", "ranks", "neighbours are")
        table.add_column(title, justify="left" if is_text else "right", overflow="fold")
    return table

"""`hpcvideo train --dry-run`: the plan of a run at any scale, shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hpcvideo.cli.progress import FILE_WIDTH, values_table, warning_lines
from hpcvideo.errors import InputError, OperationFailed

if TYPE_CHECKING:
    from hpcvideo.config import RunConfig
    from hpcvideo.training.dry_run import DryRun


def show_dry_run(
    config: str, run: Path | None, settings: list[str], ranks: int | None, ranks_per_node: int | None,
    samples: int | None, placement: Path | None, fragments: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Rehearse the run and print what came out; placement, fragments: SVG files in which all ranks, and the fragments of a
    clip, are drawn.

    Raises InputError and OperationFailed as `rehearse`.
    """
    from hpcvideo.config import load_config
    from hpcvideo.distributed.environment import discover
    from hpcvideo.methods.registry import works_on_units
    from hpcvideo.training.dry_run import rehearse

    for option, path in (("--placement", placement), ("--fragments", fragments)):
        if path is not None and path.suffix != ".svg":
            raise InputError(f"{option} {path}: it is drawn as SVG; use a name that ends in .svg")
    loaded = load_config(config, settings)
    directory = (run or Path("runs") / loaded.name).absolute()
    place = discover()
    world_size = ranks or place.world_size
    per_node = ranks_per_node or (place.local_world_size if ranks is None else world_size)
    done = rehearse(loaded, world_size, per_node, directory, samples)
    if placement is not None:
        _draw(done, loaded.name, placement)
    if fragments is not None:
        _draw_fragments(loaded, fragments)
    if as_json:
        print(json.dumps(_values(done)))
        return
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    nodes = f"{done.stages.grid.nodes} x {per_node} ranks"
    if ranks is not None and ranks_per_node is None:
        nodes += " (give --ranks-per-node)"
    console.print(values_table({**done.values, "world_size": world_size, "nodes": nodes}))
    console.print(_stage_table(done))
    for line in _findings(done, works_on_units(loaded.method.name)):
        console.print(line, highlight=False, soft_wrap=True)
    for line in warning_lines(done.values):
        console.print(line, highlight=False, soft_wrap=True)
    for what, path in (("placement", placement), ("fragments", fragments)):
        if path is not None:
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)


def _draw(done: DryRun, name: str, path: Path) -> None:
    from hpcvideo.runs.durable import write_durably
    from hpcvideo.scaling.planning.placement_drawing import placement_svg
    from hpcvideo.scaling.report.number_text import counted

    try:
        write_durably(path, placement_svg(done.stages, f"{name}: {counted(done.world_size, 'rank')}").encode())
    except OSError as error:
        raise OperationFailed(f"{path}: the placement cannot be written: {error.strerror}") from error


def _draw_fragments(config: RunConfig, path: Path) -> None:
    from hpcvideo.runs.durable import write_durably
    from hpcvideo.scaling.planning.fragment_drawing import fragments_svg
    from hpcvideo.training.fragments import carried_frames, cuts_of

    cuts = cuts_of(config)
    if cuts is None:
        raise InputError(f"--fragments {path}: method {config.method.name} takes clips whole; only progressive cuts them")
    across = bool(config.method.options().get("across_seams", False))
    drawing = fragments_svg(cuts.by_epoch[0], carried_frames(config), across, cuts.an_update_each)
    try:
        write_durably(path, drawing.encode())
    except OSError as error:
        raise OperationFailed(f"{path}: the fragments cannot be drawn there: {error.strerror}") from error


def _values(done: DryRun) -> dict[str, Any]:
    """Plain types for --json: the plan, the effective values and `warnings`, then `stages`, `order` and `files`."""
    from hpcvideo.methods.pipeline.plan import stage_spans

    grid = done.stages.grid
    stages = [
        {**asdict(stage), "memory_bytes": stage.memory_bytes, "ranks": grid.stage_ranks(number), "span": span}
        for number, (stage, span) in enumerate(zip(done.stages.stages, stage_spans(grid), strict=True))
    ]
    return {
        **asdict(done.plan),
        **done.values,
        "world_size": done.world_size,
        "nodes": grid.nodes,
        "ranks_per_node": grid.ranks_per_node,
        "stages_adjacent": grid.stages_adjacent,
        "balance": done.stages.balance,
        "bubble": done.stages.bubble,
        "busiest_node_bytes": done.stages.busiest_node_bytes,
        "stages": stages,
        "order": asdict(done.order),
        "files": asdict(done.files),
    }


def _stage_table(done: DryRun) -> Table:
    from hpcvideo.methods.pipeline.plan import stage_spans

    table = Table(box=None, pad_edge=False)
    for title in ("stage", "layers", "ranks", "nodes", "cost", "GFLOP", "parameters", "state MB", "activation MB", "all MB"):
        table.add_column(title, justify="left" if title in ("layers", "ranks") else "right")
    grid = done.stages.grid
    rows = zip(done.stages.stages, done.stages.held, stage_spans(grid), strict=True)
    for number, (stage, layers, span) in enumerate(rows):
        kept = stage.parameter_bytes + stage.gradient_bytes + stage.optimizer_bytes
        nodes = {grid.node(rank) for rank in grid.stage_ranks(number)}
        table.add_row(
            str(number), layers, span, str(len(nodes)), f"{stage.cost_share:.1%}", f"{stage.flops / 1e9:.1f}",
            f"{stage.parameter_count:,}", f"{kept / 1e6:.1f}", f"{stage.activation_bytes / 1e6:.1f}",
            f"{stage.memory_bytes / 1e6:.1f}",
        )  # fmt: skip
    return table


def _findings(done: DryRun, units: bool) -> list[str]:
    from hpcvideo.scaling.report.number_text import counted

    grid, split, order, files = done.stages.grid, done.plan.split, done.order, done.files
    lines = []
    if grid.stages > 1:
        layout = f"neighbouring ranks hold {'neighbouring stages' if grid.stages_adjacent else 'replicas of a stage'}"
        idle = f"bubble {done.stages.bubble:.1%} with {split.accumulation} micro-batches a step"
        if units:
            idle = f"a unit has no gradient in {done.stages.bubble:.1%} of a clip's steps"
        lines.append(
            f"{'units' if units else 'pipeline'}: {grid.stages} stages x {counted(grid.replicas, 'replica')}, {layout}; "
            f"balance {done.stages.balance:.1%}, {idle}"
        )
    lines.append(f"traffic: the busiest node sends {done.stages.busiest_node_bytes / 1e6:,.1f} MB a step to other nodes")
    lines.append(
        f"order: {order.steps} batches dealt to {counted(split.data_parallel, 'replica')}, {order.clips_per_replica} clips "
        f"each; in {order.epochs} whole epochs every video came exactly once"
    )
    data = "not looked for"
    if files.shards is not None:
        data = f"{counted(files.shards, 'shard')}, {(files.shard_bytes or 0) / 1e9:,.2f} GB"
    lines.append(
        f"files: training set {data}; {files.run}: checkpoints of {files.checkpoint_bytes / 1e6:,.1f} MB, "
        f"the last {files.checkpoints_kept} kept"
    )
    return lines

"""`hpcvideo plan`: step time, efficiency, time to train and node-hours at any scale, before a node-hour is spent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcvideo.cli.node_counts import parse_nodes
from hpcvideo.errors import InputError, OperationFailed

if TYPE_CHECKING:
    from hpcvideo.config import RunConfig
    from hpcvideo.scaling.model.calibrate import Calibration
    from hpcvideo.scaling.model.system import System
    from hpcvideo.scaling.planning.plan import Plan


def plan_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG", help="A YAML file, or a shipped config such as kinetics400/tsm_r50_8f_summit_256x6."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What it shall run on: a name (summit, dgx-h100, ...) or a YAML file.")
    ] = None,
    nodes: Annotated[
        str | None, typer.Option(metavar="1,2,4,...,256", help="Numbers of nodes; `...` goes on as they began.")
    ] = None,
    ranks_per_node: Annotated[int | None, typer.Option(min=1, help="Default: the system's GPUs a node.")] = None,
    target: Annotated[str | None, typer.Option(metavar="15min", help="Time to train that is wanted.")] = None,
    gpu_hours_limit: Annotated[float | None, typer.Option(min=0, help="GPU-hours that may be spent.")] = None,
    keep_batch: Annotated[
        bool, typer.Option("--keep-batch", help="Strong scaling: the config's batch at every scale; default: it grows.")
    ] = False,
    clips_per_rank: Annotated[
        int | None, typer.Option(min=1, help="Clips of a step on each rank; default: the config's.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config.")
    ] = None,
    videos: Annotated[
        str | None, typer.Option(metavar="TRAINING,VALIDATION", help="Videos of sets that are neither here nor known.")
    ] = None,
    frame_bytes: Annotated[
        float | None, typer.Option(min=1, help="Stored bytes of a frame, where the shards are not here.")
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN...", help="Fit the model to event logs of small runs of this config first."),
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw one step's (or clip's) schedule at the largest scale.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the page (index.html), the figures and plan.json.")] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Compare the model with published results; needs no CONFIG.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Predict step time, efficiency, time to train and node-hours of a config on a system, with ranges."""
    given = list(words or [])
    if validate:
        if given or system is not None or nodes is not None:
            raise InputError(
                "--validate compares the model with published results and takes neither CONFIG nor --system nor --nodes"
            )
        from hpcvideo.cli.plan_output import show_validation

        show_validation(as_json)
        return
    if not given:
        raise InputError("CONFIG is missing; give a YAML file or a shipped config, or --validate")
    # Words behind the config belong to --calibrate, which takes several runs.
    config_name, runs = given[0], [*(calibrate or []), *map(Path, given[1:])]
    if given[1:] and not calibrate:
        raise InputError(f"{given[1]}: one CONFIG is planned at a time; runs to fit to come after --calibrate")
    if system is None or nodes is None:
        raise InputError("give --system and --nodes: what the config shall run on, and on how many nodes (1,2,4,...,256)")
    if timeline is not None and timeline.suffix != ".svg":
        raise InputError(f"--timeline {timeline}: the schedule is drawn as SVG; use a name that ends in .svg")

    from hpcvideo.config import load_config
    from hpcvideo.methods.registry import unit_options
    from hpcvideo.scaling.model.calibrate import not_reached
    from hpcvideo.scaling.model.set_facts import set_facts
    from hpcvideo.scaling.model.system import load_system
    from hpcvideo.scaling.planning.goal import Goal, parse_duration
    from hpcvideo.scaling.planning.plan import make_plan
    from hpcvideo.scaling.planning.scales import batch_rule
    from hpcvideo.training.check import check_names

    config = load_config(config_name, settings or [])
    counts = parse_nodes(nodes)
    machine = load_system(system)
    per_node = ranks_per_node or int(machine.values["gpus_per_node"])
    goal = Goal(None if target is None else parse_duration(target), gpu_hours_limit)
    check_names(config)
    if unit_options(config.method.name, config.method.options()) is not None:
        if out is not None or target is not None or gpu_hours_limit is not None or as_json or runs:
            raise InputError(
                f"method {config.method.name}: its placement is shown, and --timeline draws its schedule, but no times to "
                "train are planned; leave --out, --target, --gpu-hours-limit, --calibrate and --json away"
            )
        from hpcvideo.cli.unit_plan import show_unit_plan
        from hpcvideo.scaling.planning.unit_schedule import unit_schedule_svg

        clip = show_unit_plan(config, machine, counts, per_node)
        if timeline is not None:
            print(f"schedule: {_write_drawing(unit_schedule_svg(clip), timeline)}")
        return
    facts = set_facts(config, _videos(videos), frame_bytes)
    rule = batch_rule(config, keep_batch, clips_per_rank, per_node * min(counts))
    machine, fit = _calibrated(machine, runs, config)
    plan = make_plan(config, machine, counts, per_node, facts, rule, goal, () if fit is None else fit.words)
    if fit is not None and (missing := not_reached(fit, [scale.job for scale in plan.scales])):
        plan = replace(plan, warnings=(*plan.warnings, missing))
    _answer(plan, out, timeline, as_json)


def _answer(plan: Plan, out: Path | None, timeline: Path | None, as_json: bool) -> None:
    written = []
    if out is not None:
        from hpcvideo.scaling.planning.output import write_plan

        written.append(f"plan: {write_plan(plan, out)}")
    if timeline is not None:
        from hpcvideo.scaling.planning.schedule import schedule_svg

        drawing = schedule_svg(plan.scales[-1].job, plan.system.values)
        written.append(f"schedule: {_write_drawing(drawing, timeline)}")
    if as_json:
        from hpcvideo.scaling.planning.plan_json import plan_json

        print(json.dumps(plan_json(plan), allow_nan=False))
        return
    from hpcvideo.cli.plan_output import show_plan

    show_plan(plan)
    for line in written:
        print(line)


def _write_drawing(svg: str, path: Path) -> Path:
    from hpcvideo.runs.durable import write_durably

    try:
        write_durably(path, svg.encode())
    except OSError as error:
        raise OperationFailed(f"{path}: the schedule cannot be written: {error.strerror}") from error
    return path


def _calibrated(machine: System, runs: Sequence[Path], config: RunConfig) -> tuple[System, Calibration | None]:
    """The system as the event logs of the config's small runs show it, and what was fitted."""
    if not runs:
        return machine, None
    from hpcvideo.scaling.measure.run_log import read_run_log
    from hpcvideo.scaling.model.calibrate import calibrate

    fit = calibrate([read_run_log(run) for run in runs], machine, config)
    return fit.system, fit


def _videos(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdigit() for part in parts) or int(parts[0]) < 1:
        raise InputError(
            f"--videos {text}: expected the number of training videos, or TRAINING,VALIDATION, as in 240436,19796"
        )
    return int(parts[0]), int(parts[1]) if len(parts) == 2 else 0

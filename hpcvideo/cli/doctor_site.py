"""`hpcvideo doctor --site NAME`, `--rehearsal RUN`: a profile against its cluster, and what a job's ranks have answered."""

from __future__ import annotations

import json
from pathlib import Path

import typer

_SHOWN_FAULTS = 20


def show_site(name: str, as_json: bool) -> None:
    """Compare a site's profile with what its Slurm says; leaves with 1 where they do not fit."""
    from hpcvideo.slurm.site import load_site
    from hpcvideo.slurm.site_check import check_site

    site = load_site(name)
    findings = check_site(site)
    fits = all(finding.fits for finding in findings)
    if as_json:
        rows = [{**finding.__dict__, "fits": finding.fits} for finding in findings]
        print(json.dumps({"site": site.name, "findings": rows, "can": fits}))
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table("", "profile", "cluster", "")
        for finding in findings:
            verdict = f"[red]{escape(finding.remedy)}[/]" if finding.remedy else "fits"
            table.add_row(finding.what, escape(finding.profile), escape(finding.cluster), verdict)
        console = Console(highlight=False)
        console.print(f"{escape(site.name)}: {escape(site.description)}")
        console.print(table)
    if not fits:
        raise typer.Exit(1)


def show_rehearsal(run: Path, as_json: bool) -> None:
    """Whether the answers of a rehearsed job's ranks fit together; leaves with 1 where they do not."""
    from hpcvideo.data.rehearsal import find_faults, load_answers, load_plan

    plan, answers = load_plan(run), load_answers(run)
    faults = find_faults(plan, answers)
    if as_json:
        print(json.dumps({"run": str(run), "ranks": len(answers), "world_size": plan.world_size, "faults": faults}))
    else:
        nodes = len({answer["node_name"] for answer in answers})
        where = f"{answers[0]['master_address']}:{answers[0]['master_port']}"
        print(f"{plan.config}: {len(answers)} of {plan.world_size} ranks on {nodes} nodes answered; they meet at {where}")
        if not faults:
            stages = f" in each of {plan.stages} stages" if plan.stages > 1 else ""
            print(f"each sample of a global batch of {plan.global_batch} has exactly one owner{stages}")
        for fault in faults[:_SHOWN_FAULTS]:
            print(f"  {fault}")
        if len(faults) > _SHOWN_FAULTS:
            print(f"  and {len(faults) - _SHOWN_FAULTS} more")
    if faults:
        raise typer.Exit(1)

"""Where every rank of a job sits and what it computes, as a drawing: nodes are boxes, ranks in them cells, stages colours.

Plain SVG without a library, as timeline.py: text stays text, each cell tells its rank when pointed at, and dark pages get
light ink. The same plan gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from hpcvideo.distributed.topology import StageGrid
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.plan import PipelinePlan, StagePlan, stage_spans
from hpcvideo.scaling.report.number_text import counted

COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#7f9cf5", "#b3b3b3")
"""Of stages, in their order; Okabe and Ito's for the first six. More stages than these get hues in a circle."""

MOST_RANKS = 8192
"""More cells than these are no picture any more."""

_WIDTH, _MARGIN, _TOP = 1280.0, 16.0, 62.0
_CELL_WIDTH, _CELL_HEIGHT, _GAP = 11.0, 15.0, 8.0
_LEGEND_ROW, _NODE_LABEL, _REPLICA_LABEL = 20.0, 11.0, 12.0
_SMALL_LETTER = 4.7  # width of a letter at 7.5 px, about
_EXPLANATION = "A box is a node, a cell a rank with the number of its stage, in order; below are the numbers of replicas."


def placement_svg(plan: PipelinePlan, title: str) -> str:
    """The drawing as one SVG element: a legend of the stages, then all nodes in reading order with their ranks from left to
    right; the number in a cell is its stage, the numbers below are replicas.

    Raises InputError for more than MOST_RANKS ranks.
    """
    grid = plan.grid
    if grid.world_size > MOST_RANKS:
        raise InputError(
            f"a picture of {grid.world_size} ranks cannot be read; draw at most {MOST_RANKS} (--ranks): replicas are alike"
        )
    node_width = _CELL_WIDTH * min(grid.ranks_per_node, grid.world_size) + 4
    columns = _columns(grid.nodes, int((_WIDTH - 2 * _MARGIN + _GAP) // (node_width + _GAP)))
    node_height = _NODE_LABEL + _CELL_HEIGHT + 4 + _REPLICA_LABEL
    begin = _TOP + _LEGEND_ROW * len(plan.stages) + 28
    height = begin + (node_height + _GAP) * -(-grid.nodes // columns) + 8
    colours = _colours(len(plan.stages))
    width = max(720.0, 2 * _MARGIN + columns * (node_width + _GAP) - _GAP)
    subtitle = _subtitle(plan)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(title)}: {escape(subtitle)}">',
        _style(colours),
        f'<rect class="card" width="{width:g}" height="{height:g}"/>',
        f'<text class="title" x="{_MARGIN:g}" y="26">{escape(title)}</text>',
        f'<text class="quiet" x="{_MARGIN:g}" y="45">{escape(subtitle)}</text>',
        *_legend(plan),
        f'<text class="quiet" x="{_MARGIN:g}" y="{begin - 8:g}">{_EXPLANATION}</text>',
    ]
    labels_fit = _groups_have_room(grid)
    for node in range(grid.nodes):
        x = _MARGIN + (node % columns) * (node_width + _GAP)
        y = begin + (node // columns) * (node_height + _GAP)
        parts += _node(grid, node, x, y, labels_fit)
    return "\n".join([*parts, "</svg>\n"])


def _subtitle(plan: PipelinePlan) -> str:
    grid = plan.grid
    words = f"{counted(grid.nodes, 'node')} of {counted(grid.ranks_per_node, 'rank')}"
    if grid.stages == 1:
        return f"{words}; every rank is a replica of the whole model"
    spread = sorted({len({grid.node(rank) for rank in grid.replica_ranks(replica)}) for replica in range(grid.replicas)})
    on = " or ".join(map(str, spread)) + (" node" if spread == [1] else " nodes")
    return (
        f"{words}; {counted(grid.stages, 'stage')} x {counted(grid.replicas, 'replica')}, each replica on {on}; "
        f"balance of the stages {plan.balance:.0%}"
    )


def _legend(plan: PipelinePlan) -> list[str]:
    parts = []
    for number, (stage, ranks) in enumerate(zip(plan.stages, stage_spans(plan.grid), strict=True)):
        y = _TOP + _LEGEND_ROW * number
        size = f'width="{_CELL_WIDTH:g}" height="{_CELL_HEIGHT:g}"'
        parts.append(f'<rect class="s{number}" x="{_MARGIN:g}" y="{y:g}" {size}/>')
        parts.append(f'<text class="number" x="{_MARGIN + _CELL_WIDTH / 2:g}" y="{y + 10.5:g}">{number}</text>')
        words = (
            f"stage {number}: {_held(stage)}; {stage.cost_share:.0%} of the operations, {stage.memory_bytes / 1e6:,.0f} MB "
            f"a rank; ranks {ranks}"
        )
        parts.append(f'<text x="{_MARGIN + 20:g}" y="{y + 11.5:g}">{escape(words)}</text>')
    return parts


def _held(stage: StagePlan) -> str:
    names = stage.layers
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} .. {names[-1]} ({len(names)})"


def _node(grid: StageGrid, node: int, x: float, y: float, labels_fit: bool) -> list[str]:
    ranks = range(node * grid.ranks_per_node, min((node + 1) * grid.ranks_per_node, grid.world_size))
    top = y + _NODE_LABEL
    parts = [
        f'<text class="small" x="{x:g}" y="{y + 8:g}">node {node}</text>',
        f'<rect class="node" x="{x:g}" y="{top:g}" width="{_CELL_WIDTH * len(ranks) + 4:g}" height="{_CELL_HEIGHT + 4:g}"/>',
    ]
    for place, rank in enumerate(ranks):
        left, stage = x + 2 + _CELL_WIDTH * place, grid.stage(rank)
        hint = f"rank {rank}: stage {stage} of replica {grid.replica(rank)}"
        parts.append(
            f'<rect class="s{stage}" x="{left:g}" y="{top + 2:g}" width="{_CELL_WIDTH:g}" height="{_CELL_HEIGHT:g}">'
            f"<title>{hint}</title></rect>"
            f'<text class="number" x="{left + _CELL_WIDTH / 2:g}" y="{top + 12.5:g}">{stage}</text>'
        )
    below = top + _CELL_HEIGHT + 4
    if not labels_fit:
        there = sorted({grid.replica(rank) for rank in ranks})
        middle = x + 2 + _CELL_WIDTH * len(ranks) / 2
        return [*parts, f'<text class="small middle" x="{middle:g}" y="{below + 9:g}">{_range(there)}</text>']
    for replica, first, last in _groups(grid, ranks):
        left, right = x + 2 + _CELL_WIDTH * first, x + 2 + _CELL_WIDTH * (last + 1)
        parts.append(f'<line class="tie" x1="{left + 1.5:g}" x2="{right - 1.5:g}" y1="{below + 2:g}" y2="{below + 2:g}"/>')
        parts.append(f'<text class="small middle" x="{(left + right) / 2:g}" y="{below + 10:g}">{replica}</text>')
    return parts


def _groups(grid: StageGrid, ranks: Sequence[int]) -> list[tuple[int, int, int]]:
    """(replica, place of its first rank here, of its last) for neighbouring ranks of one replica."""
    found = []
    for replica, members in groupby(enumerate(ranks), key=lambda pair: grid.replica(pair[1])):
        places = [place for place, _ in members]
        found.append((replica, places[0], places[-1]))
    return found


def _groups_have_room(grid: StageGrid) -> bool:
    """Whether every replica's number fits below its ranks."""
    digits = len(str(grid.replicas - 1))
    per_node = grid.ranks_per_node
    narrowest = min(
        last - first + 1
        for node in range(grid.nodes)
        for _, first, last in _groups(grid, range(node * per_node, min((node + 1) * per_node, grid.world_size)))
    )
    return digits * _SMALL_LETTER < narrowest * _CELL_WIDTH


def _range(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    return f"{numbers[0]} to {numbers[-1]}"


def _columns(nodes: int, most: int) -> int:
    """Nodes side by side: all of them, or the largest power of two that has room."""
    if nodes <= most:
        return nodes
    return 1 << (max(1, most).bit_length() - 1)


def _colours(stages: int) -> list[str]:
    if stages <= len(COLOURS):
        return list(COLOURS[:stages])
    return [f"hsl({360 * stage / stages:.0f},62%,{74 if stage % 2 else 62}%)" for stage in range(stages)]


def _style(colours: Sequence[str]) -> str:
    return (
        "<style>"
        "text{font:11.5px 'DejaVu Sans',Verdana,sans-serif;fill:#1b2733}"
        ".title{font-size:14px;font-weight:bold}.quiet{fill:#57636f}"
        ".small{font-size:7.5px;fill:#57636f}.middle,.number{text-anchor:middle}"
        ".number{font-size:8.5px;fill:#0b2233;pointer-events:none}"
        ".card{fill:#fff}.node{fill:none;stroke:#8a96a2;stroke-width:.8}.tie{stroke:#8a96a2;stroke-width:1.2}"
        + "".join(f".s{number}{{fill:{colour};stroke:#fff;stroke-width:.6}}" for number, colour in enumerate(colours))
        + "@media (prefers-color-scheme:dark){text{fill:#e6ebf0}.quiet,.small{fill:#a9b4bf}.number{fill:#0b2233}"
        ".card{fill:#161c22}" + "".join(f".s{number}{{stroke:#161c22}}" for number in range(len(colours))) + "}</style>"
    )

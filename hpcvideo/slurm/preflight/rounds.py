"""Who measures with whom: a tournament in which every node meets a new partner in each round."""

from __future__ import annotations


def pair_rounds(count: int, most_rounds: int) -> list[list[tuple[int, int]]]:
    """Rounds of disjoint pairs of 0..count-1, by the circle method; each pair as (smaller, larger).

    All `count - 1` rounds (`count` where that is odd: one sits out a round) hold each pair once. Where they are more than
    `most_rounds`, that many are taken, evenly spread over all, so that partners are near as well as far in the node order.
    """
    if count < 2 or most_rounds < 1:
        return []
    seats = count + count % 2
    rounds = []
    total = seats - 1
    for number in sorted({index * total // min(most_rounds, total) for index in range(min(most_rounds, total))}):
        # Seat 0 stays, the others move on by one seat a round.
        circle = [0, *(1 + (place + number) % total for place in range(total))]
        pairs = [(circle[place], circle[seats - 1 - place]) for place in range(seats // 2)]
        rounds.append(sorted((min(pair), max(pair)) for pair in pairs if max(pair) < count))
    return rounds

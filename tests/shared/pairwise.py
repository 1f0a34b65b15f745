"""A few of many cases in which every pair of values occurs that occurs in all of them."""

from itertools import combinations


def pairwise(cases):
    """A subset of `cases`, tuples of one length, in their order; always the same for the same cases.

    Most faults need one value or two together, so the subset finds what the whole product would find, but for
    faults of three values at once. Greedy: the case with the most pairs that are still missing comes next.
    """
    cases = list(cases)
    missing = [set(combinations(enumerate(case), 2)) for case in cases]
    left, chosen = set().union(*missing) if cases else set(), set()
    while left:
        best = max(range(len(cases)), key=lambda place: len(missing[place]))  # the first of equals
        chosen.add(best)
        left -= missing[best]
        for pairs in missing:
            pairs &= left
    return [case for place, case in enumerate(cases) if place in chosen]

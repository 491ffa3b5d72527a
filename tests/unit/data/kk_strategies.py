"""Hypothesis strategies for statements, and the slow definitions to compare with."""

import itertools

from hypothesis import strategies as st

from safeladder.data.knights_knaves.statements import COMMUTATIVE, LEAVES, evaluate


def statement(num_people, max_leaves=4):
    leaf = st.tuples(st.sampled_from(LEAVES), st.integers(0, num_people - 1))
    return st.recursive(leaf, lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.builds(lambda op, operands: (op, *operands), st.sampled_from(("and", "or")),
                  st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.sampled_from(("->", "<=>", "xor")), inner, inner),
    ), max_leaves=max_leaves)


def statements(min_people=2, max_people=4):
    return st.integers(min_people, max_people).flatmap(
        lambda n: st.tuples(*[statement(n)] * n))


def brute_force(puzzle):
    """All assignments in which exactly the knights' statements are true, by definition."""
    return [roles for roles in itertools.product((True, False), repeat=len(puzzle))
            if all(evaluate(s, roles) == role for s, role in zip(puzzle, roles, strict=True))]


def renamed(puzzle, order):
    """Person i becomes order[i], and speaks there."""
    def rename(node):
        if node[0] in LEAVES:
            return (node[0], order[node[1]])
        return (node[0], *map(rename, node[1:]))

    result = [None] * len(puzzle)
    for person, said in enumerate(puzzle):
        result[order[person]] = rename(said)
    return tuple(result)


def shuffled_operands(node, rng):
    """The same statement with the operands of commutative operators in another order."""
    if node[0] in LEAVES:
        return node
    operands = [shuffled_operands(operand, rng) for operand in node[1:]]
    if node[0] in COMMUTATIVE:
        rng.shuffle(operands)
    return (node[0], *operands)

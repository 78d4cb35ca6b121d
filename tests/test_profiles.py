"""The profiles: the quick one leaves out cases, and no value of a parameter with them."""

import itertools

import pytest
from profiles import covering, of_profile, thorough


def quick(cases):
    return [case.values for case in cases if not case.marks]


@pytest.mark.parametrize("sizes", [(1,), (3, 2), (5, 2, 2), (2, 7, 3), (3, 3)])
def test_few_combinations_hold_every_value(sizes):
    lists = [range(size) for size in sizes]
    cases = covering(*lists)
    assert sorted(case.values for case in cases) == sorted(itertools.product(*lists))
    for position, values in enumerate(lists):
        assert {case[position] for case in quick(cases)} == set(values)
    assert len(quick(cases)) == max(sizes)


def test_lists_of_one_length_are_paired_in_every_way_where_there_is_room():
    assert {(j, k) for _, j, k in quick(covering(range(8), "ab", "cd"))} == set(itertools.product("ab", "cd"))


def test_the_number_of_quick_combinations_can_be_bounded():
    assert len(quick(covering("abc", "de", most=2))) == 2


def test_a_case_of_the_thorough_profile_is_not_run_in_the_quick_one(request):
    assert not quick([thorough(1)])
    assert of_profile(quick=False, thorough=True) == request.config.getoption("thorough")

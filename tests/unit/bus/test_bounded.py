"""Doing one thing for many: in order, bounded, and the first failure as it is."""

import asyncio

import pytest

from shared.bounded import for_each
from shared.migration.refusals import Code, Refusal


async def test_results_come_in_the_order_of_the_items_and_never_too_many_run() -> None:
    running, most = 0, 0

    async def double(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5 - number % 5):
            await asyncio.sleep(0)
        running -= 1
        return 2 * number

    assert await for_each(range(20), double, at_once=3) == [2 * number for number in range(20)]
    assert most == 3


async def test_the_first_failure_ends_the_others_and_is_raised_as_it_is() -> None:
    ended: list[int] = []

    async def fail_at_two(number: int) -> int:
        try:
            if number == 2:
                raise Refusal(Code.JOURNAL_AWAY, "away")
            await asyncio.Event().wait()
        finally:
            ended.append(number)
        return number

    with pytest.raises(Refusal) as caught:
        await for_each(range(4), fail_at_two, at_once=4)
    assert caught.value.code is Code.JOURNAL_AWAY
    assert sorted(ended) == [0, 1, 2, 3]


async def test_nothing_to_do_is_nothing() -> None:
    async def never(_item: object) -> None:
        raise AssertionError

    assert await for_each([], never, at_once=2) == []

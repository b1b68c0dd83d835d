"""A thing that happens again and again leaves some lines and a count."""

from shared.logs.flood import KINDS_MAX, LINES_MAX, WINDOW_S, Flood


def test_so_many_lines_of_a_kind_are_written_and_the_others_counted() -> None:
    flood: Flood[str] = Flood()
    assert [flood.admits("client", 0.0) for _ in range(LINES_MAX + 5)] == [True] * LINES_MAX + [False] * 5
    assert flood.left_out(WINDOW_S - 0.1) == []
    assert flood.left_out(WINDOW_S) == [("client", 5)]
    assert flood.left_out(WINDOW_S) == [], "told once"


def test_kinds_do_not_count_for_each_other() -> None:
    flood: Flood[str] = Flood()
    for _ in range(LINES_MAX):
        flood.admits("client", 0.0)
    assert flood.admits("fault", 0.0)


def test_after_a_while_lines_are_written_again() -> None:
    flood: Flood[str] = Flood()
    for _ in range(LINES_MAX + 1):
        flood.admits("client", 0.0)
    assert not flood.admits("client", WINDOW_S - 0.1)
    flood.left_out(WINDOW_S)
    assert flood.admits("client", WINDOW_S)


def test_what_was_left_out_is_told_at_the_end() -> None:
    flood: Flood[str] = Flood()
    for _ in range(LINES_MAX + 1):
        flood.admits("client", 0.0)
    assert flood.left_out() == [("client", 1)]


def test_memory_is_bounded() -> None:
    flood: Flood[int] = Flood()
    for kind in range(KINDS_MAX + 10):
        for _ in range(LINES_MAX + 1):
            flood.admits(kind, 0.0)
    assert len(flood.left_out()) == KINDS_MAX

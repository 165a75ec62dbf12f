"""What others cause again and again fills no log."""

import time

import pytest

from owsgit.model.seldom import Seldom


def test_the_same_is_told_once_a_minute_and_not_too_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    seldom = Seldom(60.0, 3)
    assert [seldom.takes(text) for text in "aabacde"] == [True, False, True, False, True, False, False]
    now += 59
    assert not seldom.takes("a")
    now += 2
    assert seldom.takes("a") and seldom.takes("e") and not seldom.takes("a")

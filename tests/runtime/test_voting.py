"""The vote of a part's frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from runtime.voting import PartVote, VotingRule
from stlm_edge.errors import ConfigError

THRESHOLD = 0.5


def alarms(rule: VotingRule, scores: Sequence[float]) -> str:
    """`x` for each frame with an alarm, `.` for one without."""
    vote = PartVote(rule, threshold=THRESHOLD)
    seen = ""
    for score in scores:
        vote.add(score)
        seen += "x" if vote.alarm else "."
    return seen


def test_one_frame_is_enough_where_nothing_else_is_said() -> None:
    assert alarms(VotingRule(), [0.1, 0.5, 0.49, 0.9]) == ".x.x"


def test_alarm_needs_so_many_of_the_last_frames() -> None:
    assert alarms(VotingRule(2, 3), [0.9, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1]) == ".....x.."


def test_alarm_may_come_before_there_are_as_many_frames_as_vote() -> None:
    assert alarms(VotingRule(2, 5), [0.9, 0.9]) == ".x"


def test_scores_that_waver_raise_one_alarm() -> None:
    wavering = [0.4, 0.51, 0.49, 0.52, 0.41, 0.51, 0.39, 0.49, 0.51]
    assert alarms(VotingRule(), wavering) == ".x.x.x..x"
    assert alarms(VotingRule(release=0.4), wavering) == ".xxxxx..x"


def test_score_at_the_release_holds_the_alarm() -> None:
    assert alarms(VotingRule(release=0.4), [0.5, 0.4, 0.39]) == "xx."


def test_release_alone_raises_no_alarm() -> None:
    assert alarms(VotingRule(2, 3, release=0.2), [0.3, 0.3, 0.3, 0.5, 0.3, 0.5]) == ".....x"


def test_alarm_ends_when_too_few_of_the_last_frames_reach_the_release() -> None:
    assert alarms(VotingRule(2, 3, release=0.2), [0.5, 0.5, 0.1, 0.3, 0.1, 0.1]) == ".xxx.."


def test_another_part_begins_without_votes() -> None:
    vote = PartVote(VotingRule(2, 3), threshold=THRESHOLD)
    seen = []
    for part, score in [(0, 0.9), (0, 0.9), (1, 0.9), (1, 0.9), (2, 0.1)]:
        vote.begin(part)
        vote.add(score)
        seen.append((vote.part, vote.alarm))
    assert seen == [(0, False), (0, True), (1, False), (1, True), (2, False)]


def test_votes_are_parsed() -> None:
    assert VotingRule.parse("2/5") == VotingRule(2, 5)
    assert VotingRule.parse("1/1", release=0.2) == VotingRule(1, 1, 0.2)


@pytest.mark.parametrize("text", ["", "2", "2of5", "/5", "2/", "-1/5", "2/5/7", "2.5/5"])
def test_votes_that_are_no_votes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected how many of how many frames; for example 2/5"):
        VotingRule.parse(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"needed": 0}, "0 of 1 frames"),
        ({"needed": 3, "frames": 2}, "3 of 2 frames"),
        ({"release": math.nan}, "ends an alarm is nan"),
    ],
)
def test_rule_that_cannot_work_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VotingRule(**changes)


@pytest.mark.parametrize("release", [THRESHOLD, 0.6])
def test_release_must_lie_below_the_threshold(release: float) -> None:
    with pytest.raises(ConfigError, match=r"expected a score below the threshold 0\.5"):
        PartVote(VotingRule(release=release), threshold=THRESHOLD)

"""Times are found where they are meant, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saven_hf.savenvideo.times import (
    format_time,
    has_unclear_times,
    locate_spans,
    parse_spans,
    parse_times,
    shift_times,
)


def seconds(values):
    return [round(value * 1e6) for value in values]


@pytest.mark.parametrize(
    "us, text",
    [
        (0, "00:00:00.000"),
        (13_500_000, "00:00:13.500"),
        (3_723_004_000, "01:02:03.004"),
        (359_999_999_600, "100:00:00.000"),
        (999_499, "00:00:00.999"),
        (-21_333, "-00:00:00.021"),
        (-400, "00:00:00.000"),
    ],
)
def test_format(us, text):
    assert format_time(us) == text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("What happens from 00:00:01 to 00:00:13?", [1, 13]),
        ("What is heard at 13.5 s?", [13.5]),
        ("Describe 1:02:03.", [3723]),
        ("00:01:02,345 --> 00:01:05,000", [62.345, 65]),
        ("at 02:05.250", [125.25]),
        ("13s", [13]),
        ("from 1s to 13s", [1, 13]),
        ("from 1 to 13 seconds", [1, 13]),
        ("between 5 and 10 s", [5, 10]),
        ("5-10 s", [5, 10]),
        ("in the first 90 seconds", [0, 90]),
        ("after 90 seconds", [90]),
        ("at 2 minutes", [120]),
        ("at 1 min 30 s", [90]),
        ("1h 2m 3s", [3723]),
        ("1h02m03s", [3723]),
        ("10 minutes and 5 seconds", [605]),
        ("the 90-second mark", [90]),
        ("at 5, 10 and 15 seconds", [5, 10, 15]),
        ("500 ms", [0.5]),
        ("1,200 seconds", [1200]),
        ("(00:13) and again at 00:13, then 3 s", [13, 3]),
        ("from 13 s to 1 s", [13, 1]),
        ("between 1 minute and 30 seconds", [60, 30]),
    ],
)
def test_found(text, expected):
    assert parse_times(text) == seconds(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a 4:3 picture",
        "in 16:9",
        "16:10 aspect ratio",
        "an aspect ratio of 16:10",
        "a score of 12:10",
        "the meeting at 4:30 pm",
        "at 4:30 p.m. sharp",
        "10:15 in the morning",
        "on 2024-01-02 10:11:12",
        "in 1080p at 60 fps",
        "music of the 1990s",
        "1990s",
        "the 80s and 90s",
        "the '80s",
        "80s music",
        "in 3D",
        "5 sunsets",
        "10 songs",
        "2 men and 3 hats",
        "version 2.0.1",
        "2.0.1 s",
        "S01E02",
        "5 m tall",
        "75:30",
        "00:61:00",
        "1:2:3",
        "the last 10 seconds",
        "99999999999999999999 s",
        "from 2 to 5 sunsets",
        "channels 4 and 5",
    ],
)
def test_not_found(text):
    assert parse_times(text) == []
    assert parse_spans(text) == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("from 00:00:01 to 00:00:13", [(1, 13)]),
        ("between 5 and 10 s, and at 1:00", [(5, 10), (60, 60)]),
        ("1:00 - 1:30", [(60, 90)]),
        ("1 – 3 minutes", [(60, 180)]),
        ("13 s and 20 s", [(13, 13), (20, 20)]),
        ("from 13 s to 1 s", [(1, 13)]),
        ("from the 10 second mark to the 20 second mark", [(10, 20)]),
        ("the first 30 seconds", [(0, 30)]),
        ("until 8 s", [(8, 8)]),
    ],
)
def test_spans(text, expected):
    assert parse_spans(text) == [tuple(seconds(span)) for span in expected]


@given(st.integers(0, 9_999 * 3_600_000))
def test_formatted_time_is_read_back(milliseconds):
    us = milliseconds * 1000
    assert parse_times(format_time(us)) == [us]


words = st.text("abcdefghijklmnopqrstuvwxyz ,.?!()\n", max_size=40)


@given(words, st.integers(0, 9_999 * 3_600_000), words)
def test_text_around_does_not_matter(before, milliseconds, after):
    us = milliseconds * 1000
    assert parse_times(f"{before} {format_time(us)} {after}") == [us]


@given(words, st.integers(0, 3600), st.integers(0, 3600), words)
def test_span_within_text(before, start, end, after):
    text = f"{before} from {format_time(start * 1_000_000)} to {format_time(end * 1_000_000)} {after}"
    assert parse_spans(text) == [(min(start, end) * 1_000_000, max(start, end) * 1_000_000)]


@given(st.text(max_size=200))
def test_any_text_is_read(text):
    assert all(0 <= start <= end < 2**62 for start, end in parse_spans(text))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a bell: from 00:00:03.000 to 00:00:09.500, then", ["00:00:03.000 to 00:00:09.500"]),
        ("from 1 to 13 seconds and at 1 min 30 s.", ["1 to 13 seconds", "1 min 30 s"]),
        ("at 5, 10 and 15 s; score 4:3", ["5", "10", "15 s"]),
        ("no time at all", []),
    ],
)
def test_where_spans_are_written(text, written):
    found = locate_spans(text)
    assert [text[first:last] for (first, last), _ in found] == written
    assert [span for _, span in found] == parse_spans(text)


def test_a_colon_behind_a_time_is_punctuation():
    assert parse_times("At 00:00:05.500: what is shown?") == [5_500_000]
    assert parse_times("From 0:05 to 0:09: what is heard?") == [5_000_000, 9_000_000]
    assert parse_times("code 12:34:56:07") == []


def test_clock_readings_move_and_nothing_else_does():
    text = "From 00:00:01.500 to 1:02, in 4:3, at 12:30 pm, 2 circles"
    assert shift_times(text, 2_000_000) == "From 00:00:03.500 to 1:02, in 4:3, at 12:30 pm, 2 circles".replace(
        "1:02", "00:01:04.000"
    )


@pytest.mark.parametrize("text", ["for 5 s", "the first minute and the first 2 minutes", "from 1 to 13 seconds"])
def test_lengths_and_moments_cannot_be_told_apart(text):
    assert has_unclear_times(text)
    with pytest.raises(ValueError, match="not be moved|cannot be moved"):
        shift_times(text, 1)

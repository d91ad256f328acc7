"""The picture: everything lies where it happens, on one axis."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from clip import SECONDS
from matplotlib.patches import Rectangle
from PIL import Image

from saven_hf.ask import Answer
from saven_hf.cli import main
from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.media_errors import MediaError
from saven_hf.timeline import SpanRow, TimelineError, check_picture_path, draw_timeline, one_line, rows_of


ROWS = [
    SpanRow("When is it green?", "from 6 s to 9 s", right=True, asked=[(1, 2)], true=[(6, 9)], answered=[(6.5, 8)]),
    SpanRow("And at 5 s?", "never", truth="blue", right=False, asked=[(5, 5)], answered=[(100, 130)]),
]


@pytest.fixture(scope="module")
def figure(clip):
    return draw_timeline(clip, ROWS, frames=[0.5, 4.5])


def strips(figure):
    """Axes from the top: film, waveform, spectrogram, one for each row."""
    return sorted(figure.axes, key=lambda axes: -axes.get_position().y0)


def spans(axes):
    return [
        (patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches if isinstance(patch, Rectangle)
    ]


def texts(figure):
    return [text.get_text() for text in figure.texts if text.get_text()]


def test_all_strips_share_one_time_axis(figure):
    edges = {(axes.get_position().x0, axes.get_position().x1) for axes in figure.axes}
    assert len(figure.axes) == 3 + len(ROWS) and len(edges) == 1
    assert all(axes.get_xlim() == pytest.approx((0, SECONDS), abs=0.1) for axes in figure.axes)
    # No strip lies over another, and all is inside of the picture.
    boxes = [axes.get_position() for axes in strips(figure)]
    assert all(above.y0 >= below.y1 - 1e-9 for above, below in zip(boxes, boxes[1:], strict=False))
    assert boxes[0].y1 < 1 and boxes[-1].y0 > 0


def test_stills_show_what_is_on_screen_at_their_place(figure, clip):
    film = strips(figure)[0]
    with open_media(clip) as media:
        for image in film.images:
            left, right = image.get_extent()[:2]
            shown = np.asarray(image.get_array(), dtype=float)
            frame = media.frames_at([round((left + right) / 2 * 1e6)], shown.shape[:2])[0][0]
            assert np.abs(shown - frame.permute(1, 2, 0).numpy()).mean() < 1
            # Neither stretched nor cut.
            assert shown.shape[1] / shown.shape[0] == pytest.approx(320 / 240, rel=0.03)
    assert sum(right - left for left, right in (image.get_extent()[:2] for image in film.images)) > 0.97 * SECONDS
    ticks = film.collections[0].get_segments()
    assert [segment[0][0] for segment in ticks] == [0.5, 4.5]


def test_sound_lies_at_its_time_and_pitch(figure):
    _, wave, spectrum = strips(figure)[:3]
    heights = wave.collections[0].get_paths()[0].vertices
    quiet = heights[(heights[:, 0] > 3.2) & (heights[:, 0] < 5.8), 1]
    assert np.ptp(heights[:, 1]) == pytest.approx(1, abs=0.05) and np.ptp(quiet) < 0.05
    (image,) = spectrum.images
    levels = np.asarray(image.get_array())
    columns = levels.shape[1] // SECONDS
    centres = np.geomspace(70, 8000, levels.shape[0] + 1)[:-1]
    for second, hertz in ((1, 240), (7, 960), (10, 480)):
        found = centres[levels[:, second * columns + 5].argmax()]
        assert found == pytest.approx(hertz, rel=0.1)
    assert levels[:, 4 * columns + 5].max() < levels[:, columns].max() - 40


def test_spans_lie_where_they_are_and_differ_in_form(figure):
    first, second = strips(figure)[3:]
    assert spans(first) == [(1, 2), (6.5, 8), (6, 9)]
    asked, answered, true = first.patches
    assert asked.get_hatch() and not answered.get_hatch()
    assert true.get_linewidth() > 0 and not true.get_fill()
    assert answered.get_height() < true.get_height()
    # A moment is wide enough to be seen; what lies beyond the end is an arrow to there.
    (moment,) = spans(second)
    assert moment[0] < 5 < moment[1] < 5.1
    (arrow,) = [line for line in second.lines if line.get_marker() == ">"]
    assert arrow.get_xdata()[0] == second.get_xlim()[1]


def test_text_says_what_was_asked_and_answered(figure):
    found = texts(figure)
    for text in (
        "clip.mp4",
        "When is it green?",
        "from 6 s to 9 s \N{CHECK MARK}",
        "never \N{BALLOT X}",
        "truth: blue",
    ):
        assert text in found
    assert {"asked about", "true", "answered"} < set(found)


def test_long_text_is_broken_and_none_of_it_is_lost(clip):
    question, answer = "why " * 80 + "?", "because" * 60
    figure = draw_timeline(clip, [SpanRow(question, answer)])
    joined = "".join(texts(figure)).replace(" ", "")
    assert question.replace(" ", "") in joined and answer in joined
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.texts)


def test_text_is_never_read_as_a_formula_or_as_control(clip):
    figure = draw_timeline(clip, [SpanRow("$5 or $6_$?", "\x03\x1b[31m no\nwell")])
    assert "$5 or $6_$?" in texts(figure)
    assert one_line("\x03\x1b[31m no\nwell") == "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m no well"
    figure.canvas.draw()


def test_letters_without_a_font_are_boxes_and_a_warning(clip, caplog, recwarn):
    figure = draw_timeline(clip, [SpanRow("What is \U00013000?")])
    figure.canvas.draw()
    assert "What is \N{WHITE SQUARE}?" in texts(figure)
    assert "\U00013000" in caplog.text and not [one for one in recwarn if "Glyph" in str(one.message)]


def test_sound_without_picture_and_picture_without_sound(clip):
    data = clip.read_bytes()
    with open_media(data, video_stream="none") as media:
        assert len(draw_timeline(media, ROWS).axes) == 2 + len(ROWS)
        media.audio(0, 1000)  # an open medium stays open
    with open_media(data, audio_stream="none") as media:
        figure = draw_timeline(media, ROWS)
    assert len(figure.axes) == 1 + len(ROWS)
    assert strips(figure)[0].get_xticklabels()


def test_what_cannot_be_drawn(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(TimelineError, match="an image has no time"):
        draw_timeline(tmp_path / "one.png")
    with pytest.raises(MediaError):
        draw_timeline(tmp_path / "none.mp4")
    with pytest.raises(TimelineError, match=r"ends in '.gif': a picture ends in .png"):
        check_picture_path("out.gif")
    with pytest.raises(TimelineError, match="no folder"):
        check_picture_path(tmp_path / "none" / "out.png")
    check_picture_path(tmp_path / "out.PNG")


def test_rows_of_answers():
    (row,) = rows_of([Answer("From 1 s to 2 s, and at 3 s?", "a bell", [[1.5, 2.0]])])
    assert row.asked == [(1.0, 2.0), (3.0, 3.0)] and row.answered == [[1.5, 2.0]] and row.right is None


def test_ask_draws_a_picture(clip, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = ["ask", str(clip), "What is seen from 00:00:03 to 00:00:06?", "--max-new-tokens", "2", "--num-frames", "4"]
    assert main([*words, "--sampling", "uniform", "--picture", str(out)]) == 0
    assert Image.open(out).size[0] == 2000
    assert main([*words, "--picture", str(tmp_path / "out.gif")]) == 2
    assert "a picture ends in .png" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    assert main(["ask", str(tmp_path / "one.png"), "What?", "--picture", str(out)]) == 2
    assert "--picture draws a time axis" in capsys.readouterr().err


def test_the_package_and_the_module_load_without_matplotlib():
    code = "import sys, saven_hf, saven_hf.timeline, saven_hf.demo; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_drawing_leaves_the_users_matplotlib_alone(clip):
    before = dict(matplotlib.rcParams)
    draw_timeline(clip, ROWS)
    assert dict(matplotlib.rcParams) == before

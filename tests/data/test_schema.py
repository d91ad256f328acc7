"""What a row of SAVEn-Vid must be, and what is said of one that is not."""

import pytest
from rows import ROWS, caption_row, qa_row, sft_row, video_row

from saven_hf.data import schema
from saven_hf.data.schema import CONFIGS, RowError, features, row_problems, validate_row, validate_segments


REFERENCE = {"file": "b/a.mp4", "sha256": "0" * 64, "size": 9, "origin": "x", "start": 1.0, "end": 2.0}
SPANS = [f"00:00:{at:02d}.000 - 00:00:{at + 5:02d}.480" for at in (0, 10, 20, 30)]


@pytest.mark.parametrize("config", CONFIGS)
def test_valid_rows_are_stored_and_come_back(config):
    datasets = pytest.importorskip("datasets", reason="the datasets library stores rows: pip install saven-hf[train]")
    row = ROWS[config]()
    validate_row(row, config)
    table = datasets.Dataset.from_list([row], features=features(config))
    undecoded = {"video": datasets.Video(decode=False), "videos": datasets.List(datasets.Video(decode=False))}
    for column in table.column_names:
        if column in undecoded:
            table = table.cast_column(column, undecoded[column])
    assert table[0] == row


@pytest.mark.parametrize(
    ("changes", "column", "said"),
    [
        ({"duration": 0.0}, "duration", "is 0 s"),
        ({"duration": "60"}, "duration", "a number, not str '60'"),
        ({"duration": float("nan")}, "duration", "finite"),
        ({"id": " "}, "id", "empty"),
        ({"question": ""}, "question", "empty"),
        ({"options": ["Rain", "A bell", "Steps"]}, "options", "3 options: a question has 4"),
        ({"options": ["Rain", "A bell", "rain ", "Steps"]}, "options", "A and C are the same"),
        ({"options": ["Rain", "A bell", "", "Steps"]}, "options", "option C is ''"),
        ({"options": ["Rain", "A bell", "No\nthing", "Steps"]}, "options", "one line"),
        ({"answer": "E"}, "answer", "'E': it must be one of A, B, C, D"),
        ({"answer": "AB"}, "answer", "'AB'"),
        ({"question_type": "when"}, "question_type", "global, timestamped, time_range"),
        ({"category": ""}, "category", "empty"),
        ({"evidence": []}, "evidence", "no evidence"),
        ({"evidence": [[3.0, 9.5], [50.0, 60.5]]}, "evidence", r"evidence\[1\] ends at 60.5 s.* lasts 60 s"),
        ({"evidence": [[-1.0, 9.5]]}, "evidence", "starts at -1 s"),
        ({"evidence": [[9.5, 9.5]]}, "evidence", "from 9.5 to 9.5 s: spans are half-open"),
        ({"evidence": [[1.0, 2.0, 3.0]]}, "evidence", "has 3 numbers"),
        ({"question": "What is heard at 00:00:05.000?"}, "question", "global question names no time.* 5 s"),
        ({"question_type": "timestamped"}, "question", "names a time, and this one does not"),
        (
            {"question_type": "timestamped", "question": "And at 00:01:01.000?"},
            "question",
            "the time 61 s, but the video lasts 60 s",
        ),
        ({"question_type": "time_range"}, "options", "option A is 'Rain'"),
        ({"question_type": "time_range", "options": [*SPANS[:3], "at 00:00:05.000"]}, "options", "option D"),
        (
            {"question_type": "time_range", "options": [*SPANS[:3], "00:00:58.000 - 00:01:02.000"]},
            "options",
            "62 s, but the video lasts 60 s",
        ),
        ({"checks": {}}, "checks", "'checks.format' is missing; give None"),
        ({"checks": dict(schema.NOT_CHECKED, beauty=None)}, "checks", "unknown key 'beauty'"),
        ({"checks": dict(schema.NOT_CHECKED, events=3)}, "checks", "must be an object, not int '3'"),
        ({"video": None}, "video", "neither a video nor 'media'"),
        ({"video": {"bytes": None, "path": None}}, "video", "neither bytes nor a path"),
        ({"media": REFERENCE | {"file": "../a.mp4"}}, "media", "'../a.mp4'"),
        ({"media": REFERENCE | {"sha256": "F" * 64}}, "media", "lower case"),
        ({"media": REFERENCE | {"size": 0}}, "media", "at least one byte"),
        ({"media": REFERENCE | {"start": 3.0}}, "media", "from 3 to 2 s"),
        ({"notes": "mine"}, "notes", "unknown key 'notes'"),
    ],
)
def test_bad_questions(changes, column, said):
    with pytest.raises(RowError, match=said) as caught:
        validate_row(qa_row(**changes), "qa")
    assert caught.value.column == column and caught.value.config == "qa"


def test_the_three_formats():
    validate_row(qa_row(question_type="timestamped", question="What is heard at 00:00:59.980?"), "qa")
    validate_row(qa_row(question_type="time_range", options=SPANS), "qa")
    validate_row(qa_row(video=None, media=REFERENCE), "qa")
    validate_row(qa_row(evidence=[[0, 60]]), "qa")  # integers are numbers too


def test_a_row_of_another_kind():
    with pytest.raises(RowError, match="the row must be an object, not list"):
        validate_row([], "qa")
    with pytest.raises(RowError, match="'media' is missing; give None"):
        validate_row({name: value for name, value in qa_row().items() if name != "media"}, "qa")
    with pytest.raises(ValueError, match="no configuration 'sound': choose one of qa, captions, videos, sft, world"):
        validate_row(qa_row(), "sound")
    assert len(list(row_problems(qa_row(answer="", category="", evidence=[]), "qa"))) == 3


@pytest.mark.parametrize(
    ("changes", "duration", "said"),
    [
        ({"start": 9.5}, None, "half-open"),
        ({"end": 61.0}, 60.0, "ends at 61 s, but the video lasts 60 s"),
        ({"segment": -1}, None, "numbered from 0"),
        ({"segment": True}, None, "must be an integer"),
        ({"visual_caption": " "}, None, "give None"),
        ({"visual_caption": None, "audio_caption": None}, None, "neither"),
        ({"av_caption": "To 00:01:00.500."}, 60.0, "60.5 s, but the video lasts 60 s"),
    ],
)
def test_bad_captions(changes, duration, said):
    with pytest.raises(RowError, match=said):
        validate_row(caption_row(**changes), "captions", duration)


def test_segments_of_a_video():
    rows = [caption_row(), caption_row(segment=1, start=9.5, end=60.0), caption_row(segment=2, start=60.0, end=61.0)]
    validate_segments(rows)
    with pytest.raises(RowError, match="61 s, but the video lasts 60 s"):
        validate_segments(rows, 60.0)
    with pytest.raises(RowError, match="segment 2, but 1 segments stand before"):
        validate_segments([rows[0], rows[2]])
    with pytest.raises(RowError, match="segment 1 starts at 9 s, before the one in front ends, at 9.5 s"):
        validate_segments([rows[0], caption_row(segment=1, start=9.0, end=60.0)])


def test_bad_videos_and_rows_to_train_on():
    validate_row(video_row(audio_caption=None), "videos")
    with pytest.raises(RowError, match="names the time 61 s"):
        validate_row(video_row(av_caption="A bell at 00:01:01.000."), "videos")
    validate_row(sft_row(start=3.0), "sft", 60.0)
    for changes, said in (
        ({"start": 5.0, "end": 5.0}, "the part that is used goes from 5 to 5 s"),
        ({"messages": sft_row()["messages"][:1]}, "must end with an answer|assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "text": None}]}] * 2}, "user"),
        ({"videos": [sft_row()["videos"][0]] * 2}, "2 videos: a row is about one"),
        ({"kind": ""}, "'kind' is empty"),
    ):
        with pytest.raises(RowError, match=said):
            validate_row(sft_row(**changes), "sft", 60.0)
    with pytest.raises(RowError, match="names the time 3 s, but the video lasts 2 s"):
        validate_row(sft_row(), "sft", 2.0)

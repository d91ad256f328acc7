"""Rows of messages: what is read, what is refused, and what `saven validate` says about it."""

import json
import wave
from pathlib import Path

import pytest
from clip import render
from PIL import Image

from saven_hf.cli import main
from saven_hf.data.messages import DataError, attach_media, check_row, media_of, read_messages, validate_messages


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a video of 12 s (with sound), a silent image, and 2 s of sound."""
    folder = tmp_path_factory.mktemp("mine")
    render(folder / "clip.mp4")
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    with wave.open(str(folder / "hum.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0\1" * 16_000)
    return folder


def row(question="What is heard?", answer="A buzz.", videos=("clip.mp4",), **more) -> dict:
    content = [*({"type": "video"} for _ in videos), {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "videos": list(videos), **more}


def write(path: Path, *rows) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="surrogatepass")
    return path


def errors_of(bad: dict) -> str:
    with pytest.raises(DataError) as error:
        check_row(bad)
    return str(error.value)


# ---------------------------------------------------------------------------------------------------------- reading


def test_paths_are_joined_to_the_folder_of_the_file(tmp_path):
    own = {"type": "image", "image": "sub/red.png"}
    good = row(start=1, end=2.5, weight=0.5, id="a", source="me")
    good["messages"][0]["content"].insert(0, own)
    write(tmp_path / "mine.jsonl", good, "")
    (read,) = read_messages(tmp_path / "mine.jsonl")
    assert read["videos"] == [str(tmp_path / "clip.mp4")]
    assert media_of(read) == [("image", str(tmp_path / "sub/red.png")), ("video", str(tmp_path / "clip.mp4"))]
    assert {name: read[name] for name in ("start", "end", "weight", "id", "source")} == {
        **{"start": 1, "end": 2.5, "weight": 0.5, "id": "a", "source": "me"}
    }


def test_media_fill_bare_blocks_in_order_and_may_be_anything():
    frames = object()
    content = [
        {"type": "video"},
        {"type": "audio", "path": "own.wav"},
        {"type": "video"},
        {"type": "text", "text": "?"},
    ]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "!"}]
    filled = attach_media({"messages": messages, "videos": ["one.mp4", frames]})
    assert filled[0]["content"] == [
        {"type": "video", "video": "one.mp4"},
        {"type": "audio", "audio": "own.wav"},
        {"type": "video", "video": frames},
        {"type": "text", "text": "?"},
    ]
    assert filled[1] == {"role": "assistant", "content": "!"}


def test_columns_of_datasets_fill_in_what_other_rows_have():
    """Arrow gives every block every key; what is None is not there."""
    content = [{"type": "video", "text": None}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "That."}]
    check_row({"messages": messages, "videos": ["a.mp4"], "images": None, "start": None, "end": None, "weight": None})


def test_reading_streams_and_stops_at_the_first_bad_line(tmp_path):
    path = write(tmp_path / "mine.jsonl", row(), {"messages": []}, row())
    rows = read_messages(path)
    next(rows)
    with pytest.raises(DataError) as error:
        next(rows)
    assert (error.value.file, error.value.line) == (str(path), 2)
    assert str(error.value).startswith(f"{path}:2: 'messages' must be")


# --------------------------------------------------------------------------------------------------------- refusals


def turns(*roles) -> dict:
    return {"messages": [{"role": role, "content": f"turn {at}"} for at, role in enumerate(roles)]}


@pytest.mark.parametrize(
    "bad, says",
    [
        ([], "an array"),
        ({"message": []}, "did you mean 'messages'"),
        ({**row(), "video": ["b.mp4"]}, "did you mean 'videos'"),
        ({**row(), "start_time": 1}, "did you mean 'start'"),
        ({**row(), "wieght": 1}, "did you mean 'weight'"),
        ({"messages": [{"roles": "user", "content": "?"}]}, "did you mean 'role'"),
        (turns("user"), "no answer to learn"),
        (turns("system"), "no answer to learn"),
        (turns("user", "assistant", "user"), "no answer to learn"),
        (turns("assistant", "user"), "messages[0] is the assistant's"),
        (turns("system", "user", "user", "assistant"), "messages[2] is the user's"),
        (turns("user", "assistant", "system"), "messages[2] is the system's"),
        (turns("user", "tool"), "the role is 'tool'"),
        (row(answer=" "), "the assistant's turn is empty"),
        (row(question=" ", videos=()), "the user's turn is empty"),
        (row(videos=()) | {"videos": ["a.mp4"]}, "0 bare video blocks and 1 entries in 'videos'"),
        (row() | {"videos": []}, "1 bare video blocks and 0 entries"),
        (row() | {"videos": "clip.mp4"}, "'videos' must be a list"),
        (row() | {"videos": [{"file": "clip.mp4"}]}, "videos[0] must be a path"),
        (row(videos=["https://example.org/a.mp4"]), "only local files"),
        (row(question="<|video|> What?"), '{"type": "video"}'),
        (row(answer="Yes.<|im_end|>"), "<|im_end|> is typed"),
        (row(answer="half \ud83d"), "surrogate"),
        (row(start=2, end=2), "'start' must be below 'end'"),
        (row(start=-1), "0 or more"),
        (row(end=float("nan")), "'end' is nan"),
        (row(start="1"), "'start' is '1'"),
        (row(start=True), "'start' is True"),
        (row(videos=("a.mp4", "b.mp4"), start=1), "the row has 2"),
        (row(weight=0), "'weight' is 0"),
        (row(weight=10**400), "above 0"),
        ({"messages": [{"role": "user", "content": [{"type": "movie"}]}]}, "the type 'movie'"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "url": "x"}]}]}, "holds 'url'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "string under 'text'"),
        ({"messages": [{"role": "user", "content": 3}]}, "'content' must be"),
        ({"messages": ["Hello"]}, "messages[0] must be an object"),
    ],
)
def test_bad_rows_say_what_is_wrong(bad, says):
    assert says in errors_of(bad)


def test_media_belong_to_the_user():
    bad = row()
    bad["messages"][1]["content"] = [{"type": "text", "text": "Look:"}, {"type": "video"}]
    assert "media belong into the user's" in errors_of(bad)


@pytest.mark.parametrize(
    "line, says",
    [
        ("{", "not an array or an object over several lines"),
        ("[", "not an array or an object over several lines"),
        ('{"messages": nothing}', "at character 14"),
        ("[" * 100_000, "JSON"),
        ('"text"', "this is a str"),
    ],
)
def test_lines_that_are_no_row(line, says, tmp_path):
    report = validate_messages(write(tmp_path / "mine.jsonl", row(videos=()), line))
    assert [problem.line for problem in report.problems if says in problem.message] == [2]


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"messages": [{"role": "user", "content": "caf\xe9"}]}\n')
    assert "character 47 is not UTF-8" in validate_messages(path).problems[0].message


# ------------------------------------------------------------------------------------------------------- validation


def test_a_report_counts_what_is_good_and_names_what_is_not(folder):
    good = row(videos=("clip.mp4",), start=2)
    sound = row(videos=()) | {"audios": ["hum.wav"]}
    sound["messages"][0]["content"].insert(0, {"type": "audio"})
    more = row("And then?", "Silence.", videos=())["messages"]
    good["messages"] += more
    path = write(folder / "good.jsonl", good, sound, row(videos=("gone.mp4",)), row() | {"note": 1})
    report = validate_messages(path, check_media=True)
    assert (report.rows, report.bad_rows, report.turns, report.errors, report.warnings) == (4, 1, 4, 1, 1)
    assert report.media == {"videos": 2, "images": 0, "audios": 1}
    assert report.media_seconds == pytest.approx(10 + 12 + 2, abs=0.1)
    assert [(one.line, one.is_error) for one in report.problems] == [(3, True), (4, False)]
    assert "gone.mp4 is not there" in report.problems[0].message
    assert "key 'note' is not used" in report.problems[1].message


@pytest.mark.parametrize(
    "kind, name, more, is_error, says",
    [
        ("video", "hum.wav", {}, None, None),
        ("audio", "clip.mp4", {}, None, None),
        ("audio", "red.png", {}, True, "no sound"),
        ("image", "clip.mp4", {}, True, "is a video file"),
        ("video", "good.txt", {}, True, "this is a text file"),
        ("video", "clip.mp4", {"start": 12.5}, True, "is 12.0"),
        ("video", "clip.mp4", {"end": 13.0}, False, "it ends there"),
        ("video", "clip.mp4", {"question": "What is at 00:00:13?"}, False, "names 00:00:13.000, beyond the end"),
        ("video", "clip.mp4", {"answer": "At 00:00:12.050."}, None, None),
        ("video", "clip.mp4", {"answer": "At 3 s.", "start": 5}, False, "outside of the part from 5 s"),
        ("video", "clip.mp4", {"question": "<image> What?"}, False, "is read as words"),
    ],
)
def test_media_are_what_the_row_says(kind, name, more, is_error, says, folder):
    (folder / "good.txt").write_text("no video")
    one = row(videos=(), **more)
    one["messages"][0]["content"].insert(0, {"type": kind, kind: name})
    problems = validate_messages(write(folder / "mine.jsonl", one), check_media=True).problems
    assert [problem.is_error for problem in problems] == ([] if is_error is None else [is_error])
    assert says is None or says in problems[0].message


def test_problems_beyond_the_limit_are_counted(tmp_path):
    report = validate_messages(write(tmp_path / "mine.jsonl", *["no"] * 9), max_problems=4)
    assert (report.errors, len(report.problems), report.left_out) == (9, 4, 5)


# ------------------------------------------------------------------------------------------------------ the command


def test_command_passes_good_files(folder, capsys):
    path = write(folder / "fine.jsonl", row(), row())
    assert main(["validate", str(path), "--media"]) == 0
    captured = capsys.readouterr()
    assert "2 rows, 2 answers, 2 videos (00:00:24" in captured.out
    assert "2 rows" in captured.err  # the bar


def test_command_names_bad_lines_and_exits_with_2(folder, capsys):
    path = write(folder / "bad.jsonl", row(), row(answer=""), row())
    assert main(["validate", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}:2: error: messages[1]: the assistant's turn is empty.")
    assert captured.err.splitlines()[-1] == f"saven validate: error: {path}: 1 of 3 rows cannot be trained on."


def test_command_reports_to_programs(folder, capsys):
    path = write(folder / "bad.jsonl", row(), "{")
    assert main(["validate", str(path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["rows"], report["errors"], report["problems"][0]["line"]) == (False, 2, 1, 2)


@pytest.mark.parametrize("content, says", [(None, "no such file"), ("\n", "holds no rows")])
def test_command_on_nothing(content, says, tmp_path, capsys):
    path = tmp_path / "none.jsonl"
    if content is not None:
        path.write_text(content)
    assert main(["validate", str(path)]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_command_teaches_by_example(capsys):
    with pytest.raises(SystemExit):
        main(["validate", "--help"])
    assert "saven validate mine.jsonl --media" in capsys.readouterr().out

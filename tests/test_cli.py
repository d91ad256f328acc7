"""The `saven` command, run as a user runs it."""

import json
import subprocess
import sys
import time

import pytest

import saven_hf
from saven_hf.cli import main


def test_ask_prints_answer_and_what_was_fed(clip, capsys):
    assert main(["ask", str(clip), "What is heard from 00:00:03 to 00:00:06?", "--max-new-tokens", "4"]) == 0
    out = capsys.readouterr().out
    assert "? What is heard from 00:00:03 to 00:00:06?" in out
    assert "fed: 48 frames at 0.12, 0.36" in out  # four a second
    assert "12.0 s of sound, of 12.0 s" in out
    assert "Note: this tiny model was trained on the procedural world" in out


def test_ask_json_is_the_shape_that_programs_rely_on(clip, capsys):
    assert main(["ask", str(clip), "First?", "At 5 s?", "--num-frames", "4", "--max-new-tokens", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [answer["question"] for answer in result["answers"]] == ["First?", "At 5 s?"]
    assert set(result["answers"][0]) == {"question", "answer", "spans"}
    fed = result["fed"]
    assert set(fed) == {"frames", "frame_times", "audio_seconds", "video_seconds", "tokens", "seconds"}
    assert set(fed["seconds"]) == {"decode", "encode", "prefill", "generate"}
    # Midpoints of four equal bins of 12 s; a window of 48 queries and the one time that was asked for.
    assert fed["frames"] == 4
    assert fed["frame_times"] == pytest.approx([1.5, 4.5, 7.5, 10.5], abs=0.04)
    assert fed["tokens"] == 48 + 1


def test_a_session_on_a_memory_says_what_it_was_made_of(clip):
    model, processor = saven_hf.load()
    session = saven_hf.VideoSession(model.encode_video(clip, processor, num_frames=4), model, processor)
    session.ask("What is this?", max_new_tokens=1)
    assert (session.fed.frames, session.fed.video_seconds) == (4, pytest.approx(12.0, abs=0.1))
    assert session.fed.audio_seconds == pytest.approx(12.0, abs=0.2)


def test_ask_samples_where_the_question_points(clip, capsys):
    words = ["ask", str(clip), "What is seen from 00:00:03 to 00:00:06?", "--sampling", "query", "--num-frames", "8"]
    assert main([*words, "--max-new-tokens", "2", "--json"]) == 0
    times = json.loads(capsys.readouterr().out)["fed"]["frame_times"]
    assert sum(3 <= moment < 6 for moment in times) >= 4


def test_ask_reads_subtitles_along(clip, tmp_path, capsys):
    subtitles = tmp_path / "words.srt"
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello there\n")
    assert main(["ask", str(clip), "What is said?", "--subtitles", str(subtitles), "--max-new-tokens", "2"]) == 0


def test_question_file_goes_on_where_it_stopped(clip, tmp_path, capsys):
    questions, out = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    lines = [{"id": index, "video": clip.name, "question": f"Question {index}?"} for index in range(3)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["ask", str(clip.parent), "--questions", str(questions), "--out", str(out), "--max-new-tokens", "2"]
    assert main(words) == 0
    whole = out.read_text()
    assert [json.loads(line)["id"] for line in whole.splitlines()] == [0, 1, 2]
    # As if it had been killed in the middle of the last line.
    out.write_text(whole[:-5])
    assert main(words) == 0
    assert out.read_text() == whole
    assert capsys.readouterr().out.splitlines()[-1] == f"1 questions answered in {out}"


def test_malformed_question_line_is_named(clip, tmp_path, capsys):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"video": "a.mp4", "question": "?"}\n{"video": "a.mp4"}\n')
    words = ["ask", str(clip.parent), "--questions", str(questions), "--out", str(tmp_path / "out.jsonl")]
    assert main(words) == 2
    assert "line 2" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def bad_inputs(folder, clip):
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is a text file\n" * 40)
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {clip}\n")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:10,\nsegment.ts\n")
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    return {
        "missing": folder / "missing.mp4",
        "directory": folder,
        "empty": folder / "empty.mp4",
        "text": folder / "text.mp4",
        "ffconcat": folder / "list.mp4",
        "playlist": folder / "playlist.mp4",
        "truncated": folder / "cut.mp4",
        "url": "http://127.0.0.1:9/clip.mp4",
    }


@pytest.mark.parametrize("case", ["missing", "directory", "empty", "text", "ffconcat", "playlist", "truncated", "url"])
def test_bad_input_is_one_clear_line(case, clip, tmp_path, capsys):
    source = bad_inputs(tmp_path, clip)[case]
    start = time.perf_counter()
    assert main(["ask", str(source), "What is this?"]) == 2
    assert time.perf_counter() - start < 5
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("saven ask: error: ")
    assert "Traceback" not in captured.err


def command(*words: str) -> subprocess.CompletedProcess:
    """The installed command, in a process of its own; it prints last whether transformers was loaded."""
    code = (
        f"import sys; sys.argv = {['saven', *map(str, words)]}\n"
        "import saven_command; code = saven_command.main()\n"
        "print('transformers' in sys.modules); sys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_command_refuses_a_bad_file_before_it_loads_anything_heavy(tmp_path):
    result = command("ask", tmp_path / "missing.mp4", "What is this?")
    assert result.returncode == 2
    assert result.stdout.strip() == "False"
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("saven ask: error: ") and "missing.mp4" in result.stderr


def test_command_answers_about_a_good_file(clip):
    result = command("ask", clip, "What is this?", "--max-new-tokens", "2", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[0])["fed"]["frames"] == 48


@pytest.mark.parametrize("words", [["--json"], ["--sampling", "fps", "--fps=1"], ["--"]])
def test_command_finds_the_file_behind_options(words, tmp_path):
    result = command("ask", *words, tmp_path / "missing.mp4", "What is this?")
    assert result.returncode == 2 and result.stdout.strip() == "False"
    assert "missing.mp4" in result.stderr


@pytest.mark.parametrize(
    "words, names",
    [
        (["?", "--num-frames", "0"], "--num-frames"),
        (["?", "--fps", "nan"], "--fps"),
        (["?", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["?", "--device", "nowhere"], "nowhere"),
        (["what is <|video|>?"], "<|video|>"),
        ([" "], "question"),
    ],
)
def test_bad_words_are_one_clear_line(words, names, clip, capsys):
    try:
        code = main(["ask", str(clip), *words])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("saven ask: error: ") and names in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("content", ["precious", "precious\n", '{"video": 1}\n'])
def test_out_is_not_overwritten_if_it_holds_something_else(content, clip, tmp_path, capsys):
    questions, out = tmp_path / "questions.jsonl", tmp_path / "notes.txt"
    questions.write_text(json.dumps({"video": clip.name, "question": "?"}) + "\n")
    out.write_text(content)
    assert main(["ask", str(clip.parent), "--questions", str(questions), "--out", str(out)]) == 2
    assert out.read_text() == content and "notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["ask", "clip.mp4"], ["ask", "clip.mp4", "--questions", "q.jsonl"]])
def test_incomplete_words_say_what_is_missing(words, capsys):
    assert main(words) == 2
    assert "question" in capsys.readouterr().err


def test_unknown_model_is_named(clip, tmp_path, capsys):
    assert main(["ask", str(clip), "?", "--model", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_unknown_model_is_named_by_plan_and_init(clip, tmp_path, capsys, monkeypatch):
    # The environment variable is read once, when huggingface_hub is imported; no test waits for a network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["plan", str(clip), "--model", "nobody/nothing"]) == 2
    assert "nobody/nothing" in capsys.readouterr().err
    assert main(["init-7b", str(tmp_path / "out"), "--vision", "nobody/nothing", "--audio", "beats"]) == 2
    assert "nobody/nothing" in capsys.readouterr().err


def test_plan_json(clip, capsys):
    assert main(["plan", str(clip), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    # A window of 48 queries, and the start and the end of the video as the question's times.
    assert (plan["frames"], plan["windows"], plan["tokens"]) == (48, 1, 50)


def test_plan_of_the_7b_needs_no_weights(clip, capsys):
    words = ["plan", str(clip), "--model", "savenvideo-7b", "--num-frames", "4"]
    assert main([*words, "--dtype", "bfloat16", "--tflops", "400"]) == 0
    out = capsys.readouterr().out
    assert "all else at 400000 GFLOP/s, as given" in out and "weights 16.32 GB" in out
    assert "training  with LoRA and connector (" in out
    assert "tokens   66 in 1 windows (the model's context: 32768)" in out
    assert "8161.2 M parameters" in out


@pytest.mark.parametrize("verb", [["ask"], ["plan"], ["convert", "beats"], ["init-7b"]])
def test_help_teaches_by_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*verb, "--help"])
    assert stop.value.code == 0
    assert f"saven {' '.join(verb)} " in capsys.readouterr().out.split("example")[1]


def test_world_writes_what_load_dataset_opens(tmp_path, capsys):
    datasets = pytest.importorskip("datasets", reason="needs the [train] extra")
    assert main(["world", "--out", str(tmp_path / "world"), "--videos", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    rows = datasets.load_dataset(str(tmp_path / "world"), "qa", split="train", cache_dir=str(tmp_path / "cache"))
    assert (summary["videos"], summary["questions"]) == (1, len(rows))


@pytest.mark.parametrize("words", [["--split", "nowhere"], ["--seed", "-1"], ["--videos", "0"]])
def test_world_refuses_in_one_line(words, tmp_path, capsys):
    try:
        code = main(["world", "--out", str(tmp_path / "world"), "--videos", "1", *words])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "world").exists()

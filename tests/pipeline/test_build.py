"""`saven build`: whole runs, resumed ones, bad videos, and what the folder opens as."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from saven_hf.cli import main
from saven_hf.data.hub_folder import attach_videos
from saven_hf.data.schema import validate_row
from saven_hf.pipeline import PipelineError, Settings, build, build_dataset, find_videos, read_list
from saven_hf.pipeline.annotators import open_annotator
from saven_hf.pipeline.annotators.base import model_files
from saven_hf.pipeline.caption import caption
from saven_hf.pipeline.errors import ServiceError
from saven_hf.pipeline.segment import ChangeDetector, segment
from saven_hf.pipeline.stages import STAGES, VideoTask, Work, Worker
from saven_hf.savenvideo.media import open_media


datasets = pytest.importorskip("datasets", reason="datasets are written by the datasets library")
pytest.importorskip("datatrove", reason="builds run on datatrove's executors: pip install saven-hf[pipeline]")


def contents(folder) -> dict[str, bytes]:
    """All that a build promises to be the same: the dataset, its pages, and the rows of all stages."""
    names = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(("work/events", "work/logs", "work/plan")):
            names[name] = path.read_bytes()
    return names


@pytest.fixture(scope="module")
def built(world_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "mine"
    return out, build_dataset([world_folder], out, progress=False)


def test_the_folder_opens_with_every_config_and_rows_are_valid(built, world_folder):
    out, result = built
    assert result["videos"] == 6 and result["quarantined"] == [] and result["questions"] > 0
    rows = {}
    for config in ("qa", "captions", "videos", "sft"):
        cache = str(out) + ".cache"
        rows[config] = datasets.load_dataset(str(out), config, split="train", cache_dir=cache)
    for row in rows["qa"].cast_column("video", datasets.Video(decode=False)):
        validate_row(row, "qa")
        assert row["provenance"]["models"] == ["change-0.05-1-0.7", "signal"]
        assert row["video"]["bytes"] == (world_folder / f"{row['video_id']}.mp4").read_bytes()
    assert len(rows["captions"]) == result["segments"] and len(rows["videos"]) == 6
    assert len(rows["sft"]) == result["sft"]


def test_a_second_run_does_nothing_and_changes_nothing(built, world_folder):
    out, _ = built
    before = contents(out)
    again = build_dataset([world_folder], out, progress=False)
    assert contents(out) == before
    assert all(of_stage["videos"] == 0 for of_stage in again["stages"].values())


def test_work_that_is_missing_is_done_again_and_no_more(built, world_folder, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(built[0], out)
    (out / "work" / "question" / "iid-00000003.json").unlink()
    (out / "work" / "fuse" / "iid-00000004.json").write_text('{"key": "of other settings", "row": {}}')
    again = build_dataset([world_folder], out, progress=False)
    assert {stage: again["stages"][stage]["videos"] for stage in STAGES} == {
        "segment": 0, "caption": 0, "fuse": 1, "question": 1, "check": 0,
    }  # fmt: skip
    assert contents(out) == contents(built[0])


def test_bad_videos_are_put_aside_and_the_others_go_on(world_folder, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    good = sorted(world_folder.iterdir())[0]
    shutil.copy(good, videos)
    (videos / "cut.mp4").write_bytes(good.read_bytes()[:3000])
    (videos / "empty.mp4").touch()
    (videos / "text.mkv").write_text("no video")
    result = build_dataset([videos], tmp_path / "out", progress=False)
    assert result["videos"] == 1
    reasons = {one["file"]: one["reason"] for one in result["quarantined"]}
    assert set(reasons) == {"cut.mp4", "empty.mp4", "text.mkv"} and all(reasons.values())
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["segment"] * 3
    assert str(videos) not in "".join(lines)
    with pytest.raises(PipelineError, match="not one could be used"):
        build_dataset([videos / "empty.mp4"], tmp_path / "none", progress=False)


def test_the_report_has_pictures_and_verdicts(built, world_folder):
    page = (built[0] / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 6
    for words in ("Right letters", "option_length", "Length of segments", "Words of captions"):
        assert words in page
    assert str(world_folder) not in page and "http" not in page


def test_the_same_video_elsewhere_is_marked(built, world_folder, tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("iid-00000000.mp4", "iid-00000001.mp4"):
        shutil.copy(world_folder / name, tmp_path / "two" / f"other-{name}")
    result = build_dataset([tmp_path / "two"], tmp_path / "out", split="test", against=[built[0]], progress=False)
    assert {(one["video"], one["same_as"]) for one in result["duplicates"]} == {
        ("other-iid-00000000", "iid-00000000"), ("other-iid-00000001", "iid-00000001"),
    }  # fmt: skip
    row = Work(tmp_path / "out" / "work").read("check", "other-iid-00000000")
    assert row["questions"][0]["checks"]["duplicate_video"] is None  # told when rows are put together, not before


def test_a_video_of_one_shot_has_one_event_however_it_was_split(world_folder, tmp_path):
    class OneShot(ChangeDetector):
        def score(self, media):
            found = super().score(media)
            return replace(found, threshold=found.scores.max() + 1)

    path = world_folder / "iid-00000003.mp4"
    worker = Worker(Settings("oracle"), Work(tmp_path))
    worker.detector = OneShot()
    row = worker.run_video(VideoTask(path.stem, str(path), path.name))
    assert len(row["segments"]) >= 4 and row["questions"]
    assert all(one["checks"]["events"] == {"passed": False, "score": 1.0, "detail": None} for one in row["questions"])


def test_nothing_is_said_of_duplicates_where_nothing_was_compared(built):
    rows = list(datasets.load_dataset(str(built[0]), "qa", split="train", cache_dir=str(built[0]) + ".cache",
                                      columns=["checks"]))  # fmt: skip
    assert rows and all(row["checks"]["duplicate_video"] is None for row in rows)


def test_files_that_cannot_be_compared_with_are_named(world_folder, tmp_path, caplog):
    others = tmp_path / "others"
    others.mkdir()
    (others / "cut.mp4").write_bytes(b"x")
    work = Work(tmp_path / "work")
    with pytest.raises(PipelineError, match="Of 1 files .* not one"):
        build.fingerprints(others, work)
    shutil.copy(world_folder / "iid-00000000.mp4", others)
    assert [one["video_id"] for one in build.fingerprints(others, work)] == ["iid-00000000"]
    assert "cut.mp4 is not compared with" in caplog.text


def test_another_model_or_world_is_other_work(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "model.safetensors").write_bytes(b"x")
    files = model_files(tmp_path / "a")
    assert files == model_files(tmp_path / "a") != model_files(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"yy")
    assert files != model_files(tmp_path / "a") and model_files("Qwen/Qwen2.5-7B-Instruct") is None
    annotators = [open_annotator("oracle", segments=segments) for segments in (None, 4)]
    assert annotators[0].settings != annotators[1].settings
    text = [open_annotator("transformers", text_model=str(tmp_path / name)) for name in "ab"]
    assert text[0].settings["files"]["text"] != text[1].settings["files"]["text"]


def test_oracle_rows_are_the_truth(world_folder, tmp_path):
    result = build_dataset([world_folder], tmp_path / "out", Settings("oracle"), progress=False)
    assert result["questions"] >= 12
    oracle = open_annotator("oracle")
    row = Work(tmp_path / "out" / "work").read("check", "iid-00000003")
    scene = oracle.scene_of(row)
    for event in scene.pictures:
        assert event.kind.shape in row["visual_caption"]
    for one in row["questions"]:
        assert one["checks"]["consistency"]["passed"] is None and one["checks"]["format"]["passed"], one


def test_ids_are_file_names_and_differ_where_these_do_not(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my clip.mp4").write_bytes(b"x")
    (tmp_path / "b" / "other.mkv").write_bytes(b"x")
    ids = [task.video_id for task in find_videos([tmp_path])]
    assert len(set(ids)) == 3 and "other" in ids and any(one.startswith("a-my-clip.mp4-") for one in ids)
    with pytest.raises(PipelineError, match="no file or folder"):
        find_videos([tmp_path / "c"])


def test_files_given_one_by_one_are_named_below_the_folder_that_holds_them(tmp_path):
    for name in ("a/1.mp4", "b/c/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    tasks = find_videos([tmp_path / "a" / "1.mp4", tmp_path / "b" / "c" / "1.mp4"])
    assert {task.name for task in tasks} == {"a/1.mp4", "b/c/1.mp4"}
    (alone,) = find_videos([tmp_path / "a" / "1.mp4"])
    assert (alone.video_id, alone.name) == ("1", "1.mp4")


def test_a_list_says_where_videos_came_from(world_folder, tmp_path):
    (tmp_path / "with space").mkdir()
    for folder, number in (("raw", 0), ("with space", 1)):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(world_folder / f"iid-0000000{number}.mp4", tmp_path / folder / "1.mp4")
    lines = [
        {"id": "moviechat-train-1", "path": "raw/1.mp4", "file": "raw/1.mp4", "origin": "https://a/1", "start": 3.0,
         "end": 12, "source": "moviechat", "split": "train"},
        {"id": "moviechat-test-1", "path": str(tmp_path / "with space" / "1.mp4"), "file": "with space/1.mp4"},
    ]  # fmt: skip
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["build", "--list", str(path), "--out", str(tmp_path / "out"), "--source", "moviechat", "--by-reference"]
    assert main([*words, "--json"]) == 0
    rows = datasets.load_dataset(str(tmp_path / "out"), "videos", split="train", cache_dir=str(tmp_path / "cache"))
    media = {row["video_id"]: row["media"] for row in rows}
    assert set(media) == {"moviechat-train-1", "moviechat-test-1"}
    told = media["moviechat-train-1"]
    assert (told["file"], told["origin"], told["start"], told["end"]) == ("raw/1.mp4", "https://a/1", 3.0, 12.0)
    assert media["moviechat-test-1"]["file"] == "with space/1.mp4" and media["moviechat-test-1"]["origin"] is None
    attached = attach_videos(rows.cast_column("video", datasets.Video(decode=False)), tmp_path, verify="sha256")
    assert {os.path.relpath(row["video"]["path"], tmp_path) for row in attached} == {"raw/1.mp4", "with space/1.mp4"}


@pytest.mark.parametrize(
    "line, problem",
    [
        ("1.mp4", "list.jsonl:2: each line is a JSON object"),
        ('{"id": "a"}', "each line is a JSON object"),
        ('{"path": "one.mp4", "begin": 1}', "no key 'begin'"),
        ('{"path": "one.mp4", "start": "1"}', "'start' is '1'"),
        ('{"path": "two.mp4"}', "no file .*two.mp4"),
        ('{"path": "one.mp4", "split": "test"}', "its split is 'test': build those apart, with --split test"),
        ('{"path": "one.mp4", "id": "a/b"}', "the id 'a/b'"),
        ('{"path": "one.mp4"}', "Two videos have the id 'one'"),
    ],
)
def test_lines_of_a_list_that_cannot_be_used(line, problem, tmp_path):
    (tmp_path / "one.mp4").write_bytes(b"x")
    (tmp_path / "list.jsonl").write_text('{"path": "one.mp4"}\n' + line)
    with pytest.raises(PipelineError, match=problem):
        find_videos(read_list(tmp_path / "list.jsonl", "train", "own"))


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--out", "out"], "or --list FILE"),
        (["--list", "none.jsonl", "--out", "out"], "cannot be read"),
        (["nowhere.mp4", "--out", "out"], "no file or folder"),
        (["{clip}", "--out", "{clip}"], "is a file"),
        (["{clip}", "--out", "out", "--annotator", "endpoint"], "needs base_url"),
        (["{clip}", "--out", "out", "--set", "x"], "KEY=VALUE"),
        (["{clip}", "--out", "out", "--set", "x=1"], "does not take"),
        (["{clip}", "--out", "out", "--shots", "nothing"], "no shot detector"),
        (["{clip}", "--out", "out", "--prompts", "p"], "is for annotators"),
        (["{clip}", "--out", "out", "--executor", "slurm"], "partition"),
    ],
)
def test_bad_input_is_one_line(words, problem, clip_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["build", *(word.format(clip=clip_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1, error


def test_a_folder_with_other_files_is_left_alone(clip_path, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(PipelineError, match="holds other files"):
        build_dataset([clip_path], tmp_path, progress=False)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_an_unfinished_build_is_no_dataset(built, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(built[0], out)
    (out / "work" / "check" / "iid-00000002.json").unlink()
    with pytest.raises(PipelineError, match="1 videos are not done, such as iid-00000002"):
        build.assemble(out)


def test_speech_is_a_column_of_its_own(clip_path):
    signal = open_annotator("signal")
    with open_media(clip_path) as media:
        row = caption(segment({"video_id": "four"}, media), media, signal, lambda clip: "Hello." if clip.start else "")
    assert [one["transcript"] for one in row["segments"]] == [None, "Hello.", "Hello.", "Hello."]
    assert "Hello" not in "".join(one["audio_caption"] for one in row["segments"])


def test_a_disk_that_is_full_stops_the_run_and_blames_no_video(clip_path, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    worker = Worker(Settings(), Work(tmp_path))
    monkeypatch.setattr("saven_hf.pipeline.stages.written_whole", full)
    with pytest.raises(ServiceError, match="No space left on device.*start the build again"):
        worker.run_video(VideoTask("four", str(clip_path), clip_path.name))
    assert not list((tmp_path / "failed").iterdir())


def test_what_a_killed_run_left_half_written_is_cleared(tmp_path):
    work = Work(tmp_path)
    (tmp_path / "caption" / "a.json.7.partial").write_text("{")
    (tmp_path / "dataset.7.partial" / "data").mkdir(parents=True)
    work.clear_partial()
    assert not list(tmp_path.rglob("*.partial"))


def killed_at_random(world_folder, out, kills: int, *more: str) -> None:
    """Start the command, kill it and all its processes, start it again; at last let it end."""
    command = [sys.executable, "-m", "saven_hf.cli", "build", str(world_folder), "--out", str(out), "--json", *more]
    for at in range(kills):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        work, wanted = out / "work", at * 30 // kills
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:  # until so many results are there
            if sum(len(list((work / stage).glob("*.json"))) for stage in STAGES) > wanted:
                break
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--workers", "2", "--tasks", "3")])
def test_killed_runs_end_in_the_same_bytes(built, world_folder, tmp_path, more):
    killed_at_random(world_folder, tmp_path / "out", 3, *more)
    assert contents(tmp_path / "out") == contents(built[0])

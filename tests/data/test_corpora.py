"""The corpora that SAVEn-Vid is made of, laid out as they are published."""

import csv
import json
import logging
import runpy
import sys
from pathlib import Path

import pytest

from saven_hf.data.corpora import BY_REFERENCE, CORPORA, LICENCES, extract_finevideo, open_corpus
from saven_hf.data.messages import DataError, MissingMediaError
from saven_hf.pipeline import read_list


pyarrow = pytest.importorskip("pyarrow")
SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "list_videos.py"


def touch(path, content=b"video"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_parquet(path, rows):
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)


def videomme(root):
    rows = [
        {"video_id": number, "videoID": name, "url": f"https://www.youtube.com/watch?v={name}", "question": question}
        for number, name in (("001", "fFjv93ACGo8"), ("002", "N1cdUjctpG8"))
        for question in "abc"
    ]
    write_parquet(root / "videomme" / "test-00000-of-00001.parquet", rows)
    touch(root / "data" / "fFjv93ACGo8.mp4")
    touch(root / "video" / "N1cdUjctpG8.mkv")
    touch(root / "subtitle" / "N1cdUjctpG8.srt")


def finevideo(root):
    rows = [
        {"mp4": name.encode(), "json": {"original_video_filename": f"{name}.mp4", "youtube_title": f"About {name}"}}
        for name in ("sample_1", "sample_2")
    ]
    write_parquet(root / "parquet" / "data" / "train-00000-of-00001.parquet", rows)
    assert extract_finevideo(root / "parquet", root) == 2
    assert (root / "videos" / "sample_2.mp4").read_bytes() == b"sample_2"


def moviechat(root):
    for split, folders, name in (
        ("train", ("raw_videos", "jsons"), "AWA-6"),
        ("test", ("videos", "annotations"), "1"),
    ):
        told = {"info": {"video_path": f"{name}.mp4", "url": ""}, "global": [], "breakpoint": []}
        touch(root / split / folders[1] / f"{name}.json", json.dumps(told).encode())
        touch(root / split / folders[0] / f"{name}.mp4")


def nextqa(root):
    names = {"4010069381": "1106/4010069381", "2435100235": "1001/2435100235", "5": "1000/5"}
    touch(root / "map_vid_vidorID.json", json.dumps(names).encode())
    header = [
        "video",
        "frame_count",
        "width",
        "height",
        "question",
        "answer",
        "qid",
        "type",
        *(f"a{n}" for n in range(5)),
    ]
    for file, name in zip(("train", "val", "test"), names, strict=True):
        write_csv(root / f"{file}.csv", header, [[name, 9, 9, 9, "why?", 0, qid, "CW", *"abcde"] for qid in range(2)])
        touch(root / "NExTVideo" / f"{names[name]}.mp4")


def vggsound(root):
    rows = [["---g-f_I2yQ", 1, "people marching", "test"], ["--0PQM4-hqg", 30, "waterfall burbling", "train"]]
    write_csv(root / "vggsound.csv", None, rows)
    touch(root / "videos" / "---g-f_I2yQ_000001.mp4")
    touch(root / "clips" / "--0PQM4-hqg_30_40.mp4")


EXPECTED = {
    "videomme": {"videomme-fFjv93ACGo8": "test", "videomme-N1cdUjctpG8": "test"},
    "finevideo": {"finevideo-sample_1": "train", "finevideo-sample_2": "train"},
    "moviechat": {"moviechat-train-AWA-6": "train", "moviechat-test-1": "test"},
    "nextqa": {"nextqa-4010069381": "train", "nextqa-2435100235": "validation", "nextqa-5": "test"},
    "vggsound": {"vggsound---0PQM4-hqg_000030": "train", "vggsound----g-f_I2yQ_000001": "test"},
}
LAYOUTS = {
    "videomme": videomme,
    "finevideo": finevideo,
    "moviechat": moviechat,
    "nextqa": nextqa,
    "vggsound": vggsound,
}


@pytest.mark.parametrize("name", CORPORA)
def test_each_video_once_with_its_original_split(name, tmp_path):
    LAYOUTS[name](tmp_path)
    videos = list(open_corpus(name, tmp_path))
    assert {video.id: video.split for video in videos} == EXPECTED[name]
    assert all(video.path.is_file() and video.source == name in LICENCES for video in videos)
    for split in set(EXPECTED[name].values()):
        found = [video.id for video in open_corpus(name, tmp_path, split=split)]
        assert found == [video for video, own in EXPECTED[name].items() if own == split]


def test_what_corpora_tell_beside_the_file(tmp_path):
    videomme(tmp_path / "a")
    first, second = open_corpus("videomme", tmp_path / "a")
    assert first.subtitles is None and second.subtitles.name == "N1cdUjctpG8.srt"
    assert first.origin == "https://www.youtube.com/watch?v=fFjv93ACGo8"
    vggsound(tmp_path / "b")
    clip = next(iter(open_corpus("vggsound", tmp_path / "b", "train")))
    assert (clip.start, clip.end) == (30.0, 40.0) and clip.origin.endswith("--0PQM4-hqg")
    finevideo(tmp_path / "c")
    assert next(iter(open_corpus("finevideo", tmp_path / "c"))).origin == "About sample_1"


@pytest.mark.parametrize("name", CORPORA)
def test_missing_videos(name, tmp_path, caplog):
    LAYOUTS[name](tmp_path)
    gone = list(open_corpus(name, tmp_path))[0]
    gone.path.unlink()
    with pytest.raises(MissingMediaError, match=f"the video {gone.id} is not there"):
        list(open_corpus(name, tmp_path))
    corpus = open_corpus(name, tmp_path, missing="skip")
    with caplog.at_level(logging.WARNING):
        assert gone.id not in {video.id for video in corpus}
    assert corpus.counts == {"videos": len(EXPECTED[name]) - 1, "missing": 1} and "1 are missing" in caplog.text


@pytest.mark.parametrize("name", CORPORA)
def test_a_list_of_a_corpus_is_what_a_build_takes(name, tmp_path, capsys, monkeypatch):
    LAYOUTS[name](tmp_path / "with space")
    videos = [video for video in open_corpus(name, tmp_path / "with space") if video.split == "test"]
    split = "test" if videos else "train"
    videos = videos or list(open_corpus(name, tmp_path / "with space", "train"))
    monkeypatch.setattr(sys, "argv", ["list_videos", name, str(tmp_path / "with space"), "--split", split, "--json"])
    runpy.run_path(str(SCRIPT), run_name="script")["main"]()
    (tmp_path / "list.jsonl").write_text(capsys.readouterr().out)
    tasks = read_list(tmp_path / "list.jsonl", split, name)
    assert [task.video_id for task in tasks] == [video.id for video in videos]
    for task, video in zip(tasks, videos, strict=True):
        assert tmp_path / "with space" / task.name == video.path and task.path == str(video.path)
        assert (task.origin, task.start, task.end) == (video.origin, video.start, video.end)


def test_bad_corpora(tmp_path):
    for arguments, said in (
        (("nextQA", tmp_path), "did you mean 'nextqa'"),
        (("imagenet", tmp_path), "there are videomme, finevideo"),
        (("nextqa", tmp_path, "val"), "train, validation, test"),
        (("nextqa", tmp_path, None, "ignore"), "'error' or 'skip'"),
        (("nextqa", tmp_path / "none"), "no such folder"),
    ):
        with pytest.raises(DataError, match=said):
            open_corpus(*arguments)
    for name, said in (
        ("videomme", r"no videomme/\*.parquet in it"),
        ("finevideo", "no videos of finevideo in it"),
        ("moviechat", "no videos of moviechat in it"),
        ("nextqa", "map_vid_vidorID.json: the file cannot be read"),
        ("vggsound", "no such file"),
    ):
        with pytest.raises(DataError, match=said):
            list(open_corpus(name, tmp_path))
    write_parquet(tmp_path / "videomme" / "test.parquet", [{"videoID": "../x", "url": ""}])
    with pytest.raises(DataError, match="'../x' is no name of a video"):
        list(open_corpus("videomme", tmp_path))
    with pytest.raises(DataError, match="no column 'mp4': it is another dataset's"):
        extract_finevideo(tmp_path, tmp_path / "out")
    touch(tmp_path / "shards" / "a.parquet")
    with pytest.raises(DataError, match="extract_finevideo first"):
        list(open_corpus("finevideo", tmp_path / "shards"))
    with pytest.raises(DataError, match="no parquet file .*: download it again"):
        extract_finevideo(tmp_path / "shards", tmp_path / "out")
    touch(tmp_path / "jsons" / "1.json", b"{}")
    with pytest.raises(DataError, match="1.json: 'info' has no 'video_path'"):
        list(open_corpus("moviechat", tmp_path))


def test_terms_are_known_for_all():
    assert {*CORPORA, "world"} == set(LICENCES) and set(BY_REFERENCE) < set(CORPORA)

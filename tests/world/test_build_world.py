"""The world on disk, opened by the datasets library."""

import builtins
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import DatasetCard

from saven_hf.data.messages import check_row, media_of
from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.times import parse_spans, parse_times
from saven_hf.world import SPLITS, MissingDependencyError, build, caption, make_questions, sample_scene
from saven_hf.world.build import WorldBuildError, build_world
from saven_hf.world.captions import describe_picture, describe_sound
from saven_hf.world.conversations import TURNS


datasets = pytest.importorskip("datasets", reason="the datasets library writes the world: pip install saven-hf[train]")

SMALL = {"size": (32, 32), "segments": 4, "progress": False}


def contents(folder):
    """Every file of a folder: text as it is, tables without their videos, videos as times, pixels and sound."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder)
        if path.suffix == ".mp4":
            with open_media(path) as media:
                times = media.frame_times()
                found[name] = times, media.frames_at(times)[0].float(), media.audio()[0]
        elif path.suffix == ".parquet":
            rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(folder) + ".cache")
            found[name] = rows.remove_columns([c for c in rows.column_names if c in ("video", "videos")]).to_list()
        elif path.name == "README.md":
            found[name] = card_without_bits(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def card_without_bits(path):
    """The card without the sizes and sums of shards, in which the bits of their videos are."""
    card = DatasetCard.load(path)
    data = card.data.to_dict()
    for info in data["dataset_info"]:
        assert {"description", "download_size", "dataset_size"} <= info.keys()
        for name in ("description", "download_size", "dataset_size"):
            del info[name]
        info["splits"] = [{"name": one["name"], "num_examples": one["num_examples"]} for one in info["splits"]]
    return data, card.text


def assert_same(one, other):
    """Two `contents` are alike. x264 does not promise the same bits twice; another scene differs by tens of levels."""
    assert one.keys() == other.keys()
    for name, content in one.items():
        if name.suffix != ".mp4":
            assert content == other[name], name
            continue
        times, pixels, sound = other[name]
        assert content[0] == times and torch.equal(content[2], sound), name
        assert (content[1] - pixels).abs().mean() < 1, name


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "world"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "VIDEOS_PER_SHARD", 2)
        summaries = [build_world(folder, 3, 5, "train", **SMALL), build_world(folder, 2, 0, "vfr", **SMALL)]
    return folder, summaries


@pytest.fixture
def load(tmp_path):
    def load(folder, config, **options):
        return datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"), **options)

    return load


def test_summary(world):
    folder, (train, vfr) = world
    assert train["videos"] == 3 and train["questions"] == sum(len(make_questions(scene)) for scene in scenes(train))
    assert vfr["split"] == "vfr" and vfr["out"] == str(folder)
    assert train["seconds"] == pytest.approx(sum(scene.duration for scene in scenes(train)) / 1e6)


def scenes(summary):
    first = 5 if summary["split"] == "train" else 0
    return [sample_scene(first + at, summary["split"], segments=4) for at in range(summary["videos"])]


def test_questions_open_with_load_dataset(world, load):
    folder, (train, vfr) = world
    qa = load(folder, "qa")
    assert set(qa) == {"train", "vfr"} and qa["vfr"].num_rows == vfr["questions"]
    rows = list(qa["train"].cast_column("video", datasets.Video(decode=False)))
    asked = [(scene, question) for scene in scenes(train) for question in make_questions(scene)]
    for row, (scene, question) in zip(rows, asked, strict=True):
        assert row["question"] == question.text and row["options"] == list(question.options)
        assert row["answer"] == question.answer and row["options"]["ABCD".index(row["answer"])] == row["answer_text"]
        assert row["video_id"] == scene.video_id and row["duration"] == scene.duration / 1e6
        assert all(0 <= start < end <= row["duration"] for start, end in row["evidence"])
        assert row["checks"]["chance"] == question.chance._asdict() and row["checks"]["needs"] == question.needs
        assert row["provenance"]["split"] == "train" and row["source"] == "world"
        assert row["video"]["bytes"] == (folder / "videos" / f"{scene.video_id}.mp4").read_bytes()
    assert len({row["id"] for row in rows}) == len(rows)


def test_videos_are_stored_once_and_decoded_lazily(world, load):
    folder, _ = world
    shards = sorted((folder / "data/qa").glob("train-*"))
    assert [shard.name for shard in shards] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    videos = sum(path.stat().st_size for path in (folder / "videos").glob("train-*"))
    assert sum(shard.stat().st_size for shard in shards) < 1.3 * videos + 40_000
    pytest.importorskip("torchcodec", reason="datasets decodes videos with torchcodec")
    row = next(iter(load(folder, "qa", split="vfr", streaming=True)))
    assert row["video"][0].shape == (3, 32, 32)


def test_captions_open_with_load_dataset(world, load):
    folder, (train, _) = world
    rows = list(load(folder, "captions", split="train"))
    wanted = [(scene.video_id, one) for scene in scenes(train) for one in caption(scene)]
    for row, (video_id, one) in zip(rows, wanted, strict=True):
        assert (row["video_id"], row["segment"]) == (video_id, one.segment)
        assert (row["start"], row["end"]) == (one.start / 1e6, one.end / 1e6)
        assert (row["visual_caption"], row["audio_caption"], row["av_caption"]) == (one.visual, one.audio, one.text)


def test_videos_open_with_captions_of_all_of_them(world, load):
    folder, (_, vfr) = world
    rows = list(load(folder, "videos")["vfr"].cast_column("video", datasets.Video(decode=False)))
    for row, scene in zip(rows, scenes(vfr), strict=True):
        assert (row["video_id"], row["duration"]) == (scene.video_id, scene.duration / 1e6)
        assert row["video"]["bytes"] == (folder / "videos" / f"{scene.video_id}.mp4").read_bytes()
        for column, events in (("visual_caption", scene.pictures), ("audio_caption", scene.sounds)):
            assert parse_spans(row[column]) == [(event.start, event.end) for event in events]
            describe = describe_picture if column == "visual_caption" else describe_sound
            assert all(describe(event) in row[column] for event in events)
        assert row["av_caption"] == " ".join(one.text for one in caption(scene))


def test_rows_to_train_on(world, load):
    folder, (train, vfr) = world
    undecoded = datasets.List(datasets.Video(decode=False))
    rows = list(load(folder, "sft", split="train").cast_column("videos", undecoded))
    assert len(rows) == train["sft"] > 3 * train["videos"] and len({row["id"] for row in rows}) == len(rows)
    known = {scene.video_id: scene for scene in scenes(train)}
    for row in rows:
        check_row({**row, "videos": ["a.mp4"]})
        user, assistant = row["messages"]
        assert [block["type"] for block in user["content"]] == ["video", "text"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        (medium,) = media_of(row)
        assert medium.source["bytes"] == (folder / "videos" / f"{row['video_id']}.mp4").read_bytes()
        times = parse_times(assistant["content"][0]["text"])
        assert all(time <= known[row["video_id"]].duration for time in times)
        assert row["start"] is row["end"] is None and row["kind"] in TURNS and row["source"] == "world"
    # The bytes of a video are stored once, however many rows it has.
    stored = sum(path.stat().st_size for path in (folder / "data/sft").glob("train-*"))
    assert stored < 1.3 * sum(path.stat().st_size for path in (folder / "videos").glob("train-*")) + 60_000


def test_nothing_to_train_on_is_made_of_held_out_scenes(world, load, tmp_path):
    folder, (_, vfr) = world
    assert vfr["sft"] == 0 and not list((folder / "data").glob("sft/vfr*"))
    assert set(load(folder, "sft")) == {"train"}
    for split in SPLITS:
        assert ("sft" in build.configs_of(split)) == (not SPLITS[split].held_out)
    build_world(tmp_path / "world", 1, split="iid", **SMALL)
    with pytest.raises(ValueError, match="BuilderConfig 'sft' not found"):
        load(tmp_path / "world", "sft")
    assert load(tmp_path / "world", "videos")["iid"].num_rows == 1


def test_an_interrupted_run_is_completed_to_the_same_files(world, tmp_path, monkeypatch):
    folder, _ = world
    monkeypatch.setattr(build, "VIDEOS_PER_SHARD", 2)
    written = []

    def write_video(scene, path, size, write=build.write_video):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(scene, path, size)

    again = tmp_path / "world"
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_video", write_video)
        with pytest.raises(KeyboardInterrupt):
            build_world(again, 3, 5, "train", **SMALL)
    assert not (again / "README.md").exists() and "questions" not in json.loads((again / "world.json").read_text())
    (again / "videos" / "train-00000007.mp4.1.partial").write_bytes(b"half")
    build_world(again, 3, 5, "train", **SMALL)
    build_world(again, 2, 0, "vfr", **SMALL)
    assert_same(contents(again), contents(folder))
    assert build_world(again, 3, 5, "train", **SMALL)["videos"] == 3
    assert_same(contents(again), contents(folder))


def test_another_world_is_not_mixed_in(world, tmp_path):
    folder, _ = world
    with pytest.raises(WorldBuildError, match="videos 3 instead of 4, seed 5 instead of 0"):
        build_world(folder, 4, 0, "train", **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WorldBuildError, match="holds other files"):
        build_world(tmp_path, 1, **SMALL)
    with pytest.raises(WorldBuildError, match="at least one video; 0 were"):
        build_world(tmp_path / "none", 0, **SMALL)
    with pytest.raises(ValueError, match="no split 'validation'"):
        build_world(tmp_path / "none", 1, split="validation", **SMALL)


def test_card_names_the_splits(world):
    card = (world[0] / "README.md").read_text()
    assert SPLITS["vfr"].description in card and "| train | 3 |" in card


def test_without_the_datasets_library(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_datasets(name, *arguments, **options):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    with pytest.raises(MissingDependencyError, match=r'pip install "saven-hf\[train\]"'):
        build_world(tmp_path / "world", 1)
    assert not (tmp_path / "world").exists()

"""`load_dataset("savenvid")` and `load_dataset("avbench")`: offline, streaming and not, sharded, resumed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rows import PROVENANCE, qa_row

import saven_hf
from saven_hf.data import builder
from saven_hf.data.hub_folder import Card, media_reference, read_rows, write_card, write_split
from saven_hf.data.messages import DataError, MissingMediaError, attach_media, check_row
from saven_hf.data.schema import CONFIGS, features, validate_row, validate_segments


datasets = pytest.importorskip("datasets", reason="pip install saven-hf[train]")

SPLITS = {"savenvid": "train", "avbench": "test"}
CONFIGS_OF = {"savenvid": list(CONFIGS), "avbench": ["qa", "captions", "videos"]}
ALL = [(name, config) for name, configs in CONFIGS_OF.items() for config in configs]
UNDECODED = {"video": datasets.Video(decode=False), "videos": datasets.List(datasets.Video(decode=False))}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def undecoded(rows):
    for column, feature in UNDECODED.items():
        if column in rows.features:
            rows = rows.cast_column(column, feature)
    return rows


def run(code, **options):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("name", "config"), ALL)
def test_loaded_and_streamed_rows_are_the_same_and_valid(name, config, cache):
    loaded = datasets.load_dataset(name, config, split=SPLITS[name], cache_dir=cache)
    assert loaded.features == features(config)
    streamed = undecoded(datasets.load_dataset(name, config, split=SPLITS[name], streaming=True))
    rows = undecoded(loaded).to_list()
    assert rows == list(streamed) and len(rows) >= 10
    for row in rows:
        validate_row(row, config)
        for file in [row["video"]] if "video" in row else row.get("videos", ()):
            assert Path(file["path"]).stat().st_size == row["media"]["size"]


@pytest.mark.parametrize("name", SPLITS)
def test_everything_that_names_configurations_and_splits_agrees(name, cache):
    assert datasets.get_dataset_config_names(name) == CONFIGS_OF[name]
    assert datasets.get_dataset_default_config_name(name) == "qa"
    assert list(datasets.get_dataset_infos(name)) == CONFIGS_OF[name]
    for config in CONFIGS_OF[name]:
        made = datasets.load_dataset_builder(name, config, cache_dir=cache)
        assert datasets.get_dataset_split_names(name, config) == [SPLITS[name]]
        assert list(datasets.load_dataset(name, config, cache_dir=cache)) == [SPLITS[name]]
        assert made.hash == datasets.load_dataset_builder(name, config, cache_dir=cache).hash
        assert made.dataset_name == name and f"{os.sep}{name}{os.sep}{config}" in made.cache_dir
    with pytest.raises(ValueError, match="BuilderConfig 'sound' not found"):
        datasets.load_dataset(name, "sound", cache_dir=cache)


def test_videos_are_decoded_when_they_are_looked_at(cache):
    decoders = pytest.importorskip("torchcodec.decoders", reason="datasets decodes videos with torchcodec")
    for streaming in (False, True):
        rows = datasets.load_dataset("savenvid", split="train", streaming=streaming, cache_dir=cache)
        row = next(iter(rows))
        assert isinstance(row["video"], decoders.VideoDecoder)
        assert row["video"].metadata.duration_seconds == pytest.approx(row["duration"], abs=0.2)
        assert row["video"].get_frame_played_at(1.0).data.shape == (3, 64, 64)
    file = undecoded(rows)
    sound = datasets.Audio(sampling_rate=16_000).decode_example(
        {"path": next(iter(file))["video"]["path"], "bytes": None}
    )
    assert sound.get_all_samples().data.abs().max() > 0.01


def test_rows_to_train_on_are_messages(cache):
    rows = undecoded(datasets.load_dataset("savenvid", "sft", split="train", cache_dir=cache))
    kinds = [row["kind"] for row in rows]
    assert (len(kinds) - kinds.count("question")) / kinds.count("question") == pytest.approx(21 / 37, rel=0.05)
    assert {"span_caption", "captions"} < set(kinds)
    for row in rows:
        check_row({"messages": row["messages"], "videos": ["a.mp4"]})
        (block, _), _ = (message["content"] for message in attach_media(row))
        assert block == {"type": "video", "video": row["videos"][0]}


def test_segments_lie_in_their_videos(cache):
    for name, split in SPLITS.items():
        durations = {row["video_id"]: row["duration"] for row in read_rows(builder.EMBEDDED / name, "videos", split)}
        captions = list(datasets.load_dataset(name, "captions", split=split, cache_dir=cache))
        for video_id, duration in durations.items():
            validate_segments([row for row in captions if row["video_id"] == video_id], duration)
    train, test = ({row["video_id"] for row in read_rows(builder.EMBEDDED / name, "videos")} for name in SPLITS)
    assert not train & test


@pytest.mark.parametrize("world", [2, 3])
def test_split_by_node_gives_every_row_once(world):
    rows = datasets.load_dataset("savenvid", split="train", streaming=True).select_columns(["id"])
    from datasets.distributed import split_dataset_by_node

    whole = [row["id"] for row in rows]
    assert rows.num_shards > 3
    parts = [[row["id"] for row in split_dataset_by_node(rows, rank, world)] for rank in range(world)]
    assert sorted(sum(parts, [])) == sorted(whole) and all(parts)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_every_row_once(workers):
    from torch.utils.data import DataLoader

    rows = datasets.load_dataset("savenvid", split="train", streaming=True).select_columns(["id"])
    loaded = [name for batch in DataLoader(rows, batch_size=8, num_workers=workers) for name in batch["id"]]
    assert sorted(loaded) == sorted(row["id"] for row in rows) and len(set(loaded)) == len(loaded)


@pytest.mark.parametrize("seen", [1, 15, 31, 59])
def test_resumed_exactly(seen):
    def stream():
        return undecoded(datasets.load_dataset("savenvid", split="train", streaming=True)).select_columns(["id"])

    whole = [row["id"] for row in stream()]
    first = stream()
    before = [row["id"] for _, row in zip(range(seen), first, strict=False)]
    state = json.loads(json.dumps(first.state_dict()))  # as it is kept in a checkpoint
    again = stream()
    again.load_state_dict(state)
    assert before + [row["id"] for row in again] == whole


def test_shuffled_by_shards_is_resumed_exactly_too(monkeypatch):
    """A shuffle buffer loses what it holds; shards in another order, and rows in theirs, lose nothing."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)

    def stream():
        rows = datasets.load_dataset("savenvid", split="train", streaming=True).select_columns(["id"])
        return rows.reshard().shuffle(seed=3, buffer_size=1)

    whole = [row["id"] for row in stream()]
    plain = [
        row["id"] for row in datasets.load_dataset("savenvid", split="train", streaming=True).select_columns(["id"])
    ]
    assert sorted(whole) == sorted(plain) and whole != plain
    first = stream()
    before = [row["id"] for _, row in zip(range(20), first, strict=False)]
    again = stream()
    again.load_state_dict(first.state_dict())
    assert before + [row["id"] for row in again] == whole


@pytest.fixture
def folder(tmp_path):
    """A folder of one's own: a video by reference, another embedded."""
    (tmp_path / "own" / "media").mkdir(parents=True)
    clip = next((builder.EMBEDDED / "savenvid" / "videos").iterdir())
    (tmp_path / "own" / "media" / "a.mp4").write_bytes(clip.read_bytes())
    reference = media_reference(tmp_path / "own" / "media" / "a.mp4", tmp_path / "own")
    rows = [qa_row(id="1", video=None, media=reference), qa_row(id="2", provenance=PROVENANCE)]
    write_split(tmp_path / "own", "qa", "train", rows[:1], embed=False)
    write_split(tmp_path / "own", "qa", "test", rows[1:])
    write_card(tmp_path / "own", Card("Own", sources={"own": "mine"}))
    return tmp_path / "own"


def test_another_folder(folder, cache):
    rows = datasets.load_dataset("savenvid", data_dir=str(folder), cache_dir=cache)
    path = undecoded(rows["train"])[0]["video"]["path"]
    assert Path(path) == (folder / "media" / "a.mp4").resolve()
    assert undecoded(rows["test"])[0]["video"]["bytes"] == b"not decoded here"
    streamed = datasets.load_dataset("savenvid", data_dir=str(folder), columns=["id"], streaming=True, split="train")
    assert list(streamed) == [{"id": "1"}]
    with pytest.raises(DataError, match="select it beside them"):
        list(datasets.load_dataset("savenvid", data_dir=str(folder), columns=["video"], streaming=True, split="train"))
    (folder / "media" / "a.mp4").rename(folder.parent / "a.mp4")
    moved = {"streaming": True, "split": "train", "data_dir": str(folder)}
    with pytest.raises(MissingMediaError, match="no such file: fetch it"):
        list(datasets.load_dataset("savenvid", **moved))
    (folder.parent / "media").mkdir()
    (folder.parent / "a.mp4").rename(folder.parent / "media" / "a.mp4")
    found = list(undecoded(datasets.load_dataset("savenvid", media_dir=str(folder.parent), verify="sha256", **moved)))
    assert found[0]["video"]["path"] == str(folder.parent / "media" / "a.mp4")
    with pytest.raises(DataError, match=r"no data/<config>"):
        datasets.load_dataset("savenvid", data_dir=str(folder / "data"))
    for option in ({"revision": "main"}, {"data_files": "a.parquet"}):
        with pytest.raises(ValueError, match="name a folder with `data_dir`"):
            datasets.load_dataset("savenvid", **option)


def test_the_cache_follows_code_and_rows(folder, cache, monkeypatch):
    def hashed(**options):
        return datasets.load_dataset_builder("savenvid", cache_dir=cache, **options).hash

    before = hashed(data_dir=str(folder))
    assert before == hashed(data_dir=str(folder)) != hashed()
    shard = next(folder.glob("data/qa/train*"))
    os.utime(shard, (1, 1))
    assert hashed(data_dir=str(folder)) != before
    inside = hashed()
    monkeypatch.setattr(builder, "__version__", "another")
    assert hashed() != inside


def test_the_cache_follows_what_a_wheel_holds_not_its_times(tmp_path, monkeypatch):
    embedded = tmp_path / "embedded"
    shutil.copytree(builder.EMBEDDED / "avbench", embedded / "avbench")
    monkeypatch.setattr(builder, "EMBEDDED", embedded)
    shard = next(embedded.glob("avbench/data/qa/*"))
    before, times, content = builder.dataset_module("avbench").hash, shard.stat(), shard.read_bytes()
    assert builder.dataset_module("avbench").hash == before
    shard.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert builder.dataset_module("avbench").hash != before


def test_a_local_folder_wins(folder, tmp_path, monkeypatch, cache):
    folder.rename(tmp_path / "avbench")
    monkeypatch.chdir(tmp_path)
    rows = datasets.load_dataset("avbench", cache_dir=cache, split="test")
    assert rows["id"] == ["2"]
    assert datasets.get_dataset_config_names("avbench") == ["qa"]
    assert datasets.load_dataset("savenvid", cache_dir=cache, split="train").num_rows > 2


@pytest.mark.parametrize(
    "imports",
    [
        "import saven_hf\nfrom datasets import load_dataset",
        "import datasets, saven_hf",
        pytest.param("import datasets.load, saven_hf, datasets.inspect", marks=pytest.mark.slow),
    ],
)
def test_in_whatever_order_the_two_are_imported(imports, tmp_path):
    code = (
        f"{imports}\nimport datasets\n"
        "print(datasets.get_dataset_config_names('avbench'), "
        "list(datasets.load_dataset('avbench', 'captions', split='test', streaming=True))[0]['segment'])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    assert run(code, cwd=tmp_path, env=environment) == "['qa', 'captions', 'videos'] 0"


def test_other_names_are_looked_up_as_ever(tmp_path):
    with pytest.raises(FileNotFoundError, match="Couldn't find any data file"):
        datasets.load_dataset(str(tmp_path / "savenvid"))
    assert saven_hf.data.register.NAMES == tuple(SPLITS)


def test_an_unknown_version_of_datasets_is_said(caplog):
    class Other:
        pass

    saven_hf.data.register._wrap(Other)
    assert "load_dataset('savenvid') is not available" in caplog.text

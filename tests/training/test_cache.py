"""The feature cache: what it gives back is what the towers say, it survives a kill, and it knows whose it is."""

import json
import pickle
import shutil
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from small import save_small_model, small_model

from saven_hf import load, world
from saven_hf.cli import main
from saven_hf.savenvideo.tower_features import TowerFeatures
from saven_hf.training.cache import (
    CacheSettings,
    FeatureCache,
    FeatureCacheError,
    NotCachedError,
    build_cache,
    list_media,
    part_of_row,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Videos in two folders, an image, a sound, a file that is no medium, and rows of messages on them."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("a.mp4", "deep/b.mp4", "deep/c.mp4")):
        (folder / name).parent.mkdir(exist_ok=True)
        world.write_video(world.sample_scene(seed=seed, segments=2), folder / name)
    Image.new("RGB", (28, 28), "red").save(folder / "red.png")
    (folder / "notes.txt").write_text("no medium")
    rows = [
        ({"videos": ["a.mp4"]}, ["video"]),
        ({"videos": ["deep/b.mp4", "a.mp4"]}, ["video", "video"]),
        ({"videos": ["deep/c.mp4"], "start": 2.0, "end": 6.5}, ["video"]),
        ({"audios": ["deep/b.mp4"], "images": ["red.png"]}, ["image", "audio"]),
    ]
    with open(folder / "rows.jsonl", "w") as file:
        for media, kinds in rows:
            content = [*({"type": kind} for kind in kinds), {"type": "text", "text": "What is seen at 00:00:03?"}]
            messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "A red circle."}]
            file.write(json.dumps({"messages": messages, **media}) + "\n")
    return folder


@pytest.fixture(scope="module")
def parts():
    return small_model()


def build(source, out, parts, **kwargs):
    media = source if isinstance(source, list) else list_media(source)
    return build_cache(media, out, *parts, **{"progress": False, "fps": 2.0, **kwargs})


@pytest.fixture(scope="module")
def cache_dir(data, parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "cache"
    report = build(data / "rows.jsonl", folder, parts, shard_bytes=1 << 16)
    assert (report.encoded, report.kept, report.failed) == (4, 0, {})
    return folder


def same(left: TowerFeatures, right: TowerFeatures) -> bool:
    return all(
        torch.equal(value, getattr(right, name)) if isinstance(value, torch.Tensor) else value == getattr(right, name)
        for name, value in vars(left).items()
    )


class TestReading:
    def test_features_are_those_of_the_towers(self, data, parts, cache_dir):
        cache, (model, processor) = FeatureCache(cache_dir), parts
        assert set(cache) == {"a.mp4", "deep/b.mp4", "deep/c.mp4#t=2.0,6.5", "red.png"} and len(cache) == 4
        assert len(list(cache_dir.glob("*.safetensors"))) > 1
        for medium in (
            data / "a.mp4",
            str(data / "deep/b.mp4"),
            {"path": str(data / "deep/c.mp4"), "start": 2, "end": 6.5},
        ):
            assert same(cache[medium], model.encode_towers(medium, processor, fps=2.0))
        assert same(cache[{"bytes": (data / "a.mp4").read_bytes(), "path": None}], cache[data / "a.mp4"])
        assert cache[data / "red.png"].num_frames == 1 and not len(cache[data / "red.png"].column_times)

    def test_moved_and_renamed_files_are_known(self, data, cache_dir, tmp_path):
        shutil.copy(data / "a.mp4", tmp_path / "renamed.mp4")
        cache = FeatureCache(shutil.copytree(cache_dir, tmp_path / "elsewhere"))
        assert same(cache[tmp_path / "renamed.mp4"], cache[data / "a.mp4"])

    def test_files_that_are_not_at_hand_go_by_name(self, data, cache_dir, monkeypatch, tmp_path):
        cache = FeatureCache(cache_dir, root="/nowhere/data")
        assert same(cache["/nowhere/data/deep/b.mp4"], cache[data / "deep/b.mp4"])
        assert {"path": "/nowhere/data/deep/c.mp4", "start": 2.0, "end": 6.5} in cache
        assert "/nowhere/data/deep/c.mp4" not in cache  # only a part of it was cached
        monkeypatch.chdir(tmp_path)
        assert "deep/b.mp4" in FeatureCache(cache_dir)

    def test_a_changed_file_is_not_taken_for_what_it_was(self, data, cache_dir, tmp_path):
        cache, path = FeatureCache(cache_dir), tmp_path / "a.mp4"
        shutil.copy(data / "a.mp4", path)
        assert path in cache
        shutil.copy(data / "deep/c.mp4", path)
        with pytest.raises(NotCachedError, match=r"a\.mp4' is not in the cache .* of 4 media.*`saven cache` again"):
            cache[str(path)]
        assert cache.get(str(path)) is None

    def test_features_can_be_changed_and_sent_without_their_shard(self, data, cache_dir):
        cache = FeatureCache(cache_dir)
        features = cache[data / "a.mp4"]
        features.picture.zero_()
        assert cache[data / "a.mp4"].picture.abs().sum() > 0
        for tensor in features.tensors.values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes

    def test_workers_of_a_data_loader(self, data, cache_dir):
        cache, media = FeatureCache(cache_dir), [str(data / "a.mp4"), str(data / "deep/b.mp4")] * 3
        cache[media[0]]  # so that a shard is mapped before the workers start
        loader = torch.utils.data.DataLoader(Looked(cache, media), batch_size=None, num_workers=2)
        assert all(same(features, cache[medium]) for features, medium in zip(loader, media, strict=True))

    def test_it_travels_without_what_it_has_mapped(self, data, cache_dir):
        cache = FeatureCache(cache_dir)
        cache[data / "a.mp4"]
        assert len(pickle.dumps(cache)) < 4096

    def test_folders_and_files_that_are_no_cache(self, cache_dir, tmp_path):
        with pytest.raises(FileNotFoundError, match="is no feature cache"):
            FeatureCache(tmp_path)
        broken = shutil.copytree(cache_dir, tmp_path / "broken")
        shard = next(broken.glob("*.safetensors"))
        shard.write_bytes(shard.read_bytes()[:-10])
        with pytest.raises(FeatureCacheError, match="damaged: remove it and run `saven cache` again"):
            FeatureCache(broken)
        (broken / "cache.json").write_text('{"format": "another"}')
        with pytest.raises(FeatureCacheError, match="make it again"):
            FeatureCache(broken)


class Looked(torch.utils.data.Dataset):
    def __init__(self, cache, media):
        self.cache, self.media = cache, media

    def __len__(self):
        return len(self.media)

    def __getitem__(self, index):
        return self.cache[self.media[index]]


class TestTraining:
    def test_the_loss_is_that_of_the_media(self, data, parts, cache_dir):
        model, processor = parts
        cache = FeatureCache(cache_dir)
        cache.check(model, processor, fps=2.0)
        text = ["<|video|>What is seen from 00:00:01 to 00:00:02? A circle.", "<|video|>And <|video|>here?"]
        videos = [str(data / "deep/b.mp4"), str(data / "a.mp4")]
        videos.append({"path": str(data / "deep/c.mp4"), "start": 2.0, "end": 6.5})
        features = [cache[video] for video in videos]
        losses = []
        for media in (videos, features, [features[1], features[0].without_sound(), features[2]]):
            batch = processor(text=text, videos=media, padding=True, return_tensors="pt", fps=2.0)
            losses.append(model(**batch, labels=batch["input_ids"]).loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
        assert abs(losses[0] - losses[2]) > 1e-5  # it does depend on them

    def test_another_model_or_sampling_is_refused(self, parts, cache_dir):
        cache, (model, processor) = FeatureCache(cache_dir), parts
        other = small_model(seed=1)[0]
        mine, its = cache.settings.encoder_hash, other.model.tower_fingerprint()
        with pytest.raises(FeatureCacheError, match=f"made with towers {mine}, not {its}: .*another folder"):
            cache.check(other, processor, fps=2.0)
        with pytest.raises(FeatureCacheError, match=r"sampling=fps, fps=2\.0, .*not sampling=uniform, num_frames=4"):
            cache.check(model, processor)
        with pytest.raises(FeatureCacheError, match="made with preprocessing"):
            cache.check(model, processor, fps=2.0, resample=2)


class TestBuilding:
    def test_what_is_there_is_not_encoded_again(self, data, parts, tmp_path, monkeypatch):
        media = list_media(data / "rows.jsonl")
        assert build(media[:2], tmp_path / "cache", parts).encoded == 2
        encoded = []
        whole = type(parts[0]).encode_towers
        monkeypatch.setattr(
            type(parts[0]),
            "encode_towers",
            lambda self, medium, *a, **k: encoded.append(medium) or whole(self, medium, *a, **k),
        )
        report = build(media, tmp_path / "cache", parts)
        assert (report.encoded, report.kept) == (2, 2) and encoded == [medium for medium, _ in media[2:]]
        assert len(FeatureCache(tmp_path / "cache")) == 4

    def test_an_interrupted_run_keeps_what_it_has(self, data, parts, tmp_path, monkeypatch):
        calls = []
        whole = type(parts[0]).encode_towers

        def interrupted(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return whole(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(parts[0]), "encode_towers", interrupted)
            with pytest.raises(KeyboardInterrupt):
                build(data / "rows.jsonl", tmp_path / "cache", parts)
        assert len(FeatureCache(tmp_path / "cache")) == 2
        assert build(data / "rows.jsonl", tmp_path / "cache", parts).kept == 2

    def test_a_killed_run_goes_on(self, data, tmp_path):
        folder = save_small_model(tmp_path / "model")
        out = tmp_path / "cache"
        process = subprocess.Popen([sys.executable, "-c", KILLED, folder, str(data), str(out)])
        until = time.monotonic() + 120
        while not list(out.glob("*.safetensors")) and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
        process.wait()
        kept = len(FeatureCache(out))
        assert 0 < kept < 4
        # A file that was being written when the process died: nobody reads it.
        (out / "0123456789abcdef.safetensors.99.partial").write_bytes(b"half of it")
        report = build(data, out, load(folder, "cpu"), shard_bytes=1)
        assert (report.encoded, report.kept) == (4 - kept, kept)
        cache = FeatureCache(out)
        assert len(cache) == 4 and all(cache[data / name].num_frames for name in cache)

    def test_shards_of_the_work_make_one_cache(self, data, parts, tmp_path, monkeypatch):
        media = list_media(data)
        assert [source.name for source in media] == ["a.mp4", "deep/b.mp4", "deep/c.mp4", "red.png"]
        first = build(media, tmp_path / "cache", parts, shard=0, num_shards=3)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "3")
        second = build(media, tmp_path / "cache", parts)
        assert (first.encoded, second.encoded) == (2, 1)
        monkeypatch.setenv("RANK", "2")
        build(media, tmp_path / "cache", parts, workers=3)
        assert set(FeatureCache(tmp_path / "cache")) == {source.name for source in media}
        with pytest.raises(FeatureCacheError, match="Shard 3 of 3.*from 0 to 2"):
            build(media, tmp_path / "cache", parts, shard=3, num_shards=3)

    def test_threads_change_nothing(self, data, parts, cache_dir, tmp_path):
        build(data / "rows.jsonl", tmp_path / "cache", parts, workers=3, shard_bytes=1 << 16)
        names = [{path.name for path in folder.iterdir()} for folder in (cache_dir, tmp_path / "cache")]
        assert names[0] == names[1]
        left, right = FeatureCache(cache_dir), FeatureCache(tmp_path / "cache")
        assert all(same(left[data / name], right[data / name]) for name in left if "#" not in name)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, data, parts, tmp_path, dtype):
        build(data / "rows.jsonl", tmp_path / "cache", parts, dtype=dtype)
        features = FeatureCache(tmp_path / "cache")[data / "a.mp4"]
        assert str(features.picture.dtype) == str(features.sound.dtype) == f"torch.{dtype}"
        with pytest.raises(FeatureCacheError, match=f"made with dtype {dtype}, not float32"):
            build(data / "rows.jsonl", tmp_path / "cache", parts)

    def test_what_does_not_fit_float16_is_not_stored(self, data, tmp_path):
        model, processor = small_model()
        with torch.no_grad():
            model.model.vision_tower.post_layernorm.bias.fill_(1e5)
        with pytest.raises(FeatureCacheError, match="do not fit torch.float16.*Use bfloat16"):
            build(data / "rows.jsonl", tmp_path / "cache", (model, processor), dtype="float16")

    def test_a_folder_of_another_model_is_left_alone(self, data, parts, cache_dir):
        before = sorted(cache_dir.iterdir())
        with pytest.raises(FeatureCacheError, match="made with towers"):
            build(data, cache_dir, small_model(seed=1))
        with pytest.raises(FeatureCacheError, match=r"fps=2\.0.*not sampling=fps, fps=1\.0"):
            build(data, cache_dir, parts, fps=1.0)
        assert sorted(cache_dir.iterdir()) == before

    def test_bad_requests(self, data, parts, tmp_path):
        with pytest.raises(FeatureCacheError, match="sampling='query'"):
            build(data, tmp_path / "cache", parts, fps=None, sampling="query")
        with pytest.raises(FeatureCacheError, match="not as float64"):
            build(data, tmp_path / "cache", parts, dtype=torch.float64)
        with pytest.raises(FeatureCacheError, match="choose an empty folder"):
            build(data, data, parts)
        model, processor = small_model(freeze_audio=False)
        with pytest.raises(FeatureCacheError, match="training mode"):
            build(data, tmp_path / "cache", (model.train(), processor))
        assert not (tmp_path / "cache").exists()

    def test_a_broken_medium_is_named_and_the_others_are_stored(self, data, parts, tmp_path):
        shutil.copy(data / "a.mp4", tmp_path / "a.mp4")
        (tmp_path / "broken.mp4").write_bytes((data / "a.mp4").read_bytes()[:3000])
        report = build(tmp_path, tmp_path / "cache", parts)
        assert (
            report.encoded == 1
            and list(report.failed) == ["broken.mp4"]
            and "broken.mp4" in report.failed["broken.mp4"]
        )
        assert list(FeatureCache(tmp_path / "cache")) == ["a.mp4"]

    def test_shards_are_readable_without_this_package(self, cache_dir):
        settings = json.loads((cache_dir / "cache.json").read_text())
        assert settings["format"] == "savenvideo-feature-cache-1" and settings["sampling"]["fps"] == 2.0
        for path in cache_dir.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                media = json.loads(file.metadata()["media"])
                assert file.get_slice("picture").get_shape()[0] == sum(row[2] for row in media)
                assert file.get_slice("sound").get_shape()[0] == sum(row[3] for row in media)


# Writes a file a medium, slowly.
KILLED = """
import sys, time
from saven_hf import load
from saven_hf.training.cache import build_cache, list_media

model, processor = load(sys.argv[1], "cpu")
encode = model.encode_towers
model.encode_towers = lambda *args, **kwargs: (encode(*args, **kwargs), time.sleep(1))[0]
build_cache(list_media(sys.argv[2]), sys.argv[3], model, processor, shard_bytes=1, progress=False, fps=2.0)
"""


class TestListing:
    def test_a_medium_of_many_rows_is_listed_once(self, data):
        media = list_media(data / "rows.jsonl")
        assert [source.name for source in media] == ["a.mp4", "deep/b.mp4", "deep/c.mp4#t=2.0,6.5", "red.png"]

    def test_rows_of_a_dataset(self, data):
        rows = [{"messages": [{"role": "user", "content": [{"type": "video"}]}], "videos": [str(data / "a.mp4")]}]
        assert [source.name for source in list_media(rows, root=data)] == ["a.mp4"]

    def test_parts_of_rows(self):
        row = {"start": 1.0, "end": None}
        assert part_of_row(row, "video", "a.mp4") == {"path": "a.mp4", "start": 1.0}
        assert part_of_row(row, "image", "a.png") == "a.png"
        assert part_of_row({}, "video", "a.mp4") == "a.mp4"

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="neither a folder of media nor"):
            list_media(tmp_path / "missing")
        with pytest.raises(FeatureCacheError, match="holds no media"):
            list_media(tmp_path)
        with pytest.raises(FeatureCacheError, match="without a path"):
            list_media([{"messages": [{"role": "user", "content": [{"type": "video"}]}], "videos": [{"bytes": b"1"}]}])


class TestCommand:
    def test_cache(self, data, tmp_path, capsys):
        folder, out = save_small_model(tmp_path / "model"), str(tmp_path / "cache")
        words = [
            "cache",
            str(data),
            "--out",
            out,
            "--model",
            folder,
            "--device",
            "cpu",
            "--fps",
            "2",
            "--dtype",
            "float16",
        ]
        assert main([*words, "--shard", "0", "--num-shards", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["encoded"] == 2
        assert main(words) == 0
        assert f"{out}: 2 media encoded" in capsys.readouterr().out
        assert len(FeatureCache(out)) == 4
        for wrong, message in (
            (["--fps", "1"], "sample as the cache does"),
            (["--shard", "1"], "--shard I and --num-shards N go together"),
            (["--shard", "2", "--num-shards", "2"], "shards count from 0 to 1"),
        ):
            assert main([*words, *wrong]) == 2
            assert message in capsys.readouterr().err
        assert main(["cache", str(tmp_path / "missing"), "--out", out]) == 2
        assert "neither a folder of media nor" in capsys.readouterr().err

    def test_settings_are_those_of_the_model_by_default(self, parts):
        assert CacheSettings.of(*parts).dtype == "float32"

"""Rows from files, datasets, sequences and iterables; mixed, dealt out, and found again after a break."""

import json
from itertools import islice

import datasets
import numpy as np
import pytest
from clip import render
from small import features_of, small_model, talk
from torch.utils.data import DataLoader

from saven_hf.data.messages import DataError, media_of
from saven_hf.training.cache import build_cache, list_media
from saven_hf.training.recipe import DataSource
from saven_hf.training.sources import LengthGroupedSampler, PackedRows, RowStream, build_dataset, open_source


def rows_named(prefix, count):
    return [{"messages": talk("?", f"{prefix}{number}"), "id": f"{prefix}{number}"} for number in range(count)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ids(samples):
    return [sample["row"]["id"] for sample in samples]


class TestMapStyle:
    def test_jsonl(self, tmp_path):
        rows = [{"messages": talk("?", "é", {"type": "video"}), "videos": ["a.mp4"]}, *rows_named("b", 3)]
        dataset = build_dataset([DataSource(write_jsonl(tmp_path / "rows.jsonl", rows))])
        assert len(dataset) == 4 and dataset[0]["row"]["videos"] == [str(tmp_path / "a.mp4")]
        assert dataset[3] == {"row": rows[3], "index": 3}

    def test_rows_may_hold_anything(self):
        model, processor = small_model()
        rows = [{"messages": talk("?", "!", {"type": "video"}), "videos": [features_of(model, processor)]}]
        assert build_dataset([rows])[0]["row"]["videos"][0] is rows[0]["videos"][0]

    def test_sources_without_weights_give_every_row_once(self):
        dataset = build_dataset([rows_named("a", 3), rows_named("b", 2)])
        assert sorted(ids(dataset)) == ["a0", "a1", "a2", "b0", "b1"]
        assert sorted(sample["index"] for sample in dataset) == [0, 1, 2, 3, 4]

    def test_weights(self, tmp_path):
        sources = [
            DataSource(write_jsonl(tmp_path / f"{name}.jsonl", rows_named(name, 200)), weight=weight)
            for name, weight in (("a", 3.0), ("b", 1.0))
        ]
        drawn = ids(build_dataset(sources, seed=1))
        share = sum(name.startswith("a") for name in drawn) / len(drawn)
        assert share == pytest.approx(0.75, abs=0.06)
        assert len(set(drawn)) == 400  # every row was seen
        assert drawn == ids(build_dataset(sources, seed=1)) != ids(build_dataset(sources, seed=2))

    def test_a_dataset_folder(self, tmp_path):
        (tmp_path / "set").mkdir()
        rows = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}], "id": "7"}]
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "set" / "train.parquet")
        assert ids(build_dataset([DataSource(str(tmp_path / "set"))])) == ["7"]
        stream = build_dataset([DataSource(str(tmp_path / "set"), streaming=True)])
        assert ids(islice(stream, 2)) == ["7", "7"]

    def test_a_folder_with_rows_to_train_on_and_others(self, tmp_path):
        """As `saven build` writes it: the default configuration holds questions, which are no messages."""
        talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        rows = {"qa": [{"id": "q", "question": "?"}], "sft": [{"messages": talk, "id": id} for id in ("a0", "a1")]}
        card = ["---", "configs:"]
        for config, of_config in rows.items():
            datasets.Dataset.from_list(of_config).to_parquet(tmp_path / f"{config}.parquet")
            card += [f"- config_name: {config}", f"  data_files: {config}.parquet"]
        (tmp_path / "README.md").write_text("\n".join([*card, "---", ""]))
        assert ids(build_dataset([DataSource(str(tmp_path))])) == ["a0", "a1"]
        with pytest.raises(DataError, match="no column 'messages' .they have id, question.*data.0.config"):
            build_dataset([DataSource(str(tmp_path), config="qa")])

    def test_bytes_in_a_dataset_stay_bytes(self, tmp_path):
        """`datasets` would decode columns of files, which the processor does better."""
        render(tmp_path / "clip.mp4")
        messages = [{"role": "user", "content": [{"type": "video", "text": None}, {"type": "text", "text": "?"}]}]
        messages += [{"role": "assistant", "content": [{"type": "text", "text": "!"}]}]
        features = datasets.Features(
            {
                "messages": datasets.List(
                    {
                        "role": datasets.Value("string"),
                        "content": datasets.List({"type": datasets.Value("string"), "text": datasets.Value("string")}),
                    }
                ),
                "videos": datasets.List(datasets.Video()),
            }
        )
        row = {"messages": messages, "videos": [str(tmp_path / "clip.mp4")]}
        (tmp_path / "set").mkdir()
        datasets.Dataset.from_list([row], features=features).to_parquet(tmp_path / "set" / "train.parquet")
        opened = open_source(DataSource(str(tmp_path / "set")))[0]
        assert media_of(opened)[0].source["path"].endswith("clip.mp4")

    def test_a_reader(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "1.jpg").touch()
        talkative = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A cat."}]
        entry = {"id": "1", "image": "1.jpg", "conversations": talkative}
        (tmp_path / "blip.json").write_text(json.dumps([entry, {**entry, "id": "2", "image": "2.jpg"}]))
        source = DataSource(
            str(tmp_path / "blip.json"),
            reader="lcs558k",
            media_root=str(tmp_path / "images"),
            options={"missing": "skip"},
        )
        rows = open_source(source)
        assert len(rows) == 1 and media_of(rows[0])[0] == ("image", str(tmp_path / "images" / "1.jpg"))

    def test_what_cannot_be_read(self, tmp_path):
        with pytest.raises(DataError, match="no data"):
            build_dataset([])
        with pytest.raises(DataError, match="no such file"):
            build_dataset([DataSource("missing.jsonl")])
        with pytest.raises(DataError, match="neither a JSONL file nor a dataset"):
            build_dataset([DataSource(str(tmp_path / "missing"))])
        with pytest.raises(DataError, match="a.jsonl:1: "):
            build_dataset([DataSource(write_jsonl(tmp_path / "a.jsonl", [{"messages": []}]))])
        with pytest.raises(DataError, match="no rows"):
            PackedRows([])
        with pytest.raises(DataError, match="Source 1 of 2 holds no rows"):
            build_dataset([rows_named("a", 1), []])

    def test_from_a_cache(self, tmp_path):
        model, processor = small_model()
        render(tmp_path / "clip.mp4")
        row = {"messages": talk("?", "!", {"type": "video"}), "videos": ["clip.mp4"], "id": "1"}
        path = write_jsonl(tmp_path / "rows.jsonl", [row])
        build_cache(list_media(path), tmp_path / "cache", model, processor, progress=False)
        sample = build_dataset([DataSource(path, cache=str(tmp_path / "cache"))])[0]
        features = media_of(sample["row"])[0].source
        assert features.is_tower_features and features.num_frames == 4 and sample["row"]["id"] == "1"


class TestLengthGroups:
    def sampled(self, sizes, group=4, epoch=0, **kwargs):
        return list(LengthGroupedSampler(np.asarray(sizes), group, 7, lambda: epoch, **kwargs))

    def test_every_row_comes_once_and_neighbours_are_alike(self):
        sizes = np.random.default_rng(0).integers(50, 1000, 1003)
        order = self.sampled(sizes)
        assert sorted(order) == list(range(1003))
        batches = sizes[order][:1000].reshape(-1, 4)
        assert batches.mean(1).sum() / batches.max(1).sum() > 0.95
        assert np.abs(np.diff(batches.mean(1))).mean() > 100  # batches themselves come in random order

    def test_the_order_follows_from_the_epoch(self):
        sizes = list(range(100))
        assert self.sampled(sizes) == self.sampled(sizes) != self.sampled(sizes, epoch=1)

    def test_sizes_come_from_files_and_lists(self, tmp_path):
        rows = [{"messages": talk("?", "!" * count)} for count in (1, 500, 20)]
        for source in (DataSource(write_jsonl(tmp_path / "rows.jsonl", rows)), rows):
            sizes = build_dataset([source]).with_format("numpy", columns=["size"])["size"]
            assert np.argsort(sizes).tolist() == [0, 2, 1]


class TestStreams:
    def test_are_endless_and_may_start_later(self):
        stream = build_dataset([lambda: iter(rows_named("a", 3))])
        assert ids(islice(stream, 7)) == ["a0", "a1", "a2", "a0", "a1", "a2", "a0"]
        later = build_dataset([lambda: iter(rows_named("a", 3))], skip=5)
        assert ids(islice(later, 2)) == ["a2", "a0"] and next(iter(later))["index"] == 5

    def test_are_mixed_by_weight(self):
        stream = RowStream(build_dataset([lambda: iter(rows_named("a", 3)), lambda: iter(rows_named("b", 3))])._rows)
        drawn = ids(islice(stream, 400))
        assert sum(name.startswith("a") for name in drawn) == pytest.approx(200, abs=50)
        assert drawn == ids(islice(stream, 400))

    def test_an_iterator_that_ran_out_says_so(self):
        stream = build_dataset([iter(rows_named("a", 3))])
        with pytest.raises(DataError, match="ran out of rows"):
            list(islice(stream, 5))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_processes_and_workers_share_them_out(self, workers):
        """Two processes, perhaps with two workers each: nothing twice, nothing left out, batches as one has them."""
        stream = build_dataset([lambda: iter(rows_named("a", 24))])
        seen = []
        for process in range(2):
            part = stream.shard(num_shards=2, index=process)
            loader = DataLoader(part, batch_size=2, num_workers=workers, collate_fn=ids)
            seen.append([name for batch in islice(loader, 6) for name in batch])
        assert sorted(seen[0] + seen[1]) == sorted(f"a{number}" for number in range(24))
        if not workers:
            assert seen[0] == [f"a{number}" for number in range(0, 24, 2)]


def test_a_source_may_leave_the_sound_of_its_videos_out(tmp_path):
    videos = [{"type": "video", "video": "clip.mp4"}, {"type": "audio", "audio": "clip.mp4"}]
    row = {"messages": [{"role": "user", "content": [*videos, {"type": "text", "text": "?"}]}]}
    row["messages"].append({"role": "assistant", "content": "x"})
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "clip.mp4").write_bytes(b"")
    heard, seen = (
        open_source(DataSource(path=str(tmp_path / "rows.jsonl"), use_audio=use))[0]["messages"][0]["content"]
        for use in (True, False)
    )
    path = str(tmp_path / "clip.mp4")
    assert seen[0]["video"] == {"path": path, "use_audio": False} and seen[1] == heard[1]

"""Folders that `load_dataset` opens: shards, cards, embedded videos and references."""

import os
from pathlib import Path

import pytest
from rows import ROWS, caption_row, qa_row, sft_row, video, video_row

from saven_hf.data import hub_folder
from saven_hf.data.hub_folder import (
    Card,
    DatasetWriteError,
    attach_videos,
    dataset_folder,
    media_reference,
    read_rows,
    shards,
    splits,
    statistics,
    write_card,
    write_split,
)
from saven_hf.data.messages import MissingMediaError
from saven_hf.data.schema import RowError


datasets = pytest.importorskip("datasets", reason="the datasets library opens folders: pip install saven-hf[train]")
parquet = pytest.importorskip("pyarrow.parquet")

CARD = Card("Mine", about="Bells.", sources={"own": "CC BY 4.0"}, paper={"questions": "37,000"})


@pytest.fixture
def load(tmp_path):
    def load(folder, config, **options):
        return datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"), **options)

    return load


def questions(videos, each=5, size=1000):
    """Rows on videos that differ and do not compress."""
    for at in range(videos):
        content = os.urandom(size)
        for number in range(each):
            yield qa_row(id=f"{at}-{number}", video_id=str(at), video=video(content), answer="ABCD"[number % 4])


def test_a_folder_opens_with_load_dataset(tmp_path, load):
    rows = {"qa": [qa_row(id="1"), qa_row(id="2", answer="C")], "sft": [sft_row()], "videos": [video_row()]}
    with dataset_folder(tmp_path / "mine") as folder:
        for config, of_config in rows.items():
            assert write_split(folder, config, "train", of_config) == len(of_config)
        write_split(folder, "captions", "train", [caption_row()])
        write_split(folder, "qa", "test", [qa_row(id="3")])
        write_card(folder, CARD)
        assert not (tmp_path / "mine").exists()
    mine = tmp_path / "mine"
    assert datasets.get_dataset_config_names(str(mine)) == ["qa", "captions", "videos", "sft"]
    assert datasets.get_dataset_split_names(str(mine), "qa") == ["test", "train"] == splits(mine, "qa")
    for config, of_config in rows.items():
        loaded = load(mine, config, split="train")
        assert loaded.features == hub_folder.features(config)
        assert [row["video_id"] for row in read_rows(mine, config)][0] == of_config[0]["video_id"]
    assert load(mine, "qa")["train"].remove_columns("video").to_list() == [
        {name: value for name, value in row.items() if name != "video"} for row in rows["qa"]
    ]
    card = (mine / "README.md").read_text()
    assert "| `qa` | train | 2 | 1 | 0.02 | 60.0 |" in card and "| own | 5 | CC BY 4.0 |" in card
    assert "license: cc-by-4.0\n" in card and "## Limits and biases" in card
    assert "| questions | 37,000 | 3 |" in card and "right answers A 0, B 1, C 1, D 0" in card
    assert statistics(mine)["sft"]["train"]["kinds"] == {"question": 1}


def test_a_folder_that_was_made_anew_is_read_anew(tmp_path, load):
    """datasets keeps the rows of a local folder in a cache that it knows by the folder's name and card."""
    for answer in "AC":
        with dataset_folder(tmp_path / "mine") as folder:
            write_split(folder, "qa", "train", [qa_row(id="1", answer=answer, question=f"What is heard at {answer}?")])
            write_card(folder, CARD)
        assert load(tmp_path / "mine", "qa", split="train")["answer"] == [answer]


def test_a_video_is_stored_once_and_shards_are_small(tmp_path, load):
    size = 20_000
    # The text of a row is counted at 4 KiB.
    write_split(tmp_path, "qa", "train", questions(60, size=size), shard_bytes=20 * (size + 5 * 4096))
    found = shards(tmp_path, "qa", "train")
    assert [path.name for path in found] == [f"train-{at:05d}-of-00003.parquet" for at in range(3)]
    stored = [path.stat().st_size for path in found]
    assert all(one < 20 * (size + 5 * 4096) for one in stored) and sum(stored) < 60 * size * 1.1
    rows = load(tmp_path, None, data_files={"train": "data/qa/train-*.parquet"}, split="train")
    assert len(rows) == 300 and len(set(rows["id"])) == 300


def test_row_groups_are_small_enough_to_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_folder, "GROUP_BYTES", 12_000)
    write_split(tmp_path, "qa", "train", questions(6, size=1000))
    with parquet.ParquetFile(shards(tmp_path, "qa")[0]) as file:
        assert [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] == [12, 12, 6]
    monkeypatch.undo()
    write_split(tmp_path, "captions", "train", [caption_row(segment=at) for at in range(250)])
    with parquet.ParquetFile(shards(tmp_path, "captions")[0]) as file:
        assert [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] == [100, 100, 50]


def test_nothing_is_left_of_a_split_that_fails(tmp_path):
    def rows():
        yield from questions(50)
        yield qa_row(answer="E")

    with pytest.raises(RowError, match="qa row 'a-1': the answer is 'E'"):
        write_split(tmp_path, "qa", "train", rows())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(DatasetWriteError, match="not a single row for 'qa', split 'train'"):
        write_split(tmp_path, "qa", "train", [])
    with pytest.raises(DatasetWriteError, match="16 bytes, but a shard has at most 8000"):
        write_split(tmp_path, "qa", "train", [qa_row()], shard_bytes=8000)
    with pytest.raises(MissingMediaError, match="gone.mp4: the video cannot be read"):
        write_split(tmp_path, "qa", "train", [qa_row(video={"bytes": None, "path": "gone.mp4"})])
    write_split(tmp_path, "qa", "train", [qa_row()])
    with pytest.raises(DatasetWriteError, match="has the split 'train' already"):
        write_split(tmp_path, "qa", "train", [qa_row()])
    with pytest.raises(DatasetWriteError, match="source 'own', whose licence .* which has none"):
        write_card(tmp_path, Card("Mine"))


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    mine = tmp_path / "mine"
    for answer in "AB":
        with dataset_folder(mine) as folder:
            write_split(folder, "qa", "train", [qa_row(answer=answer)])
            write_card(folder, CARD)
    with pytest.raises(RuntimeError), dataset_folder(mine) as folder:
        write_split(folder, "qa", "train", [qa_row(answer="C")])
        raise RuntimeError
    assert [row["answer"] for row in read_rows(mine, "qa")] == ["B"] and os.listdir(tmp_path) == ["mine"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("---\nlicense: mit\n---\nsaven_hf_dataset: no\n")
    with pytest.raises(DatasetWriteError, match="other: it holds other files"), dataset_folder(tmp_path / "other"):
        pass


def test_videos_by_reference(tmp_path, load):
    media = tmp_path / "media"
    (media / "b").mkdir(parents=True)
    (media / "b" / "a.mp4").write_bytes(b"bell")
    reference = media_reference(media / "b" / "a.mp4", media, origin="https://example.org/a", start=1.0, end=61.0)
    assert reference["file"] == "b/a.mp4" and reference["size"] == 4
    row = qa_row(video={"bytes": None, "path": str(media / "b" / "a.mp4")}, media=reference)
    write_split(tmp_path, "qa", "train", [row], embed=False)
    write_split(tmp_path, "sft", "train", [sft_row(media=reference)], embed=False)
    write_card(tmp_path, CARD)
    with pytest.raises(DatasetWriteError, match="no 'media'"):
        write_split(tmp_path, "qa", "test", [qa_row()], embed=False)

    undecoded = {"qa": ("video", datasets.Video(decode=False)), "sft": ("videos", [datasets.Video(decode=False)])}
    for config, (column, feature) in undecoded.items():
        for streaming in (False, True):
            loaded = load(tmp_path, config, split="train", streaming=streaming)
            assert not next(iter(loaded))[column] and next(iter(loaded))["media"] == reference
            attached = attach_videos(loaded, media, verify="sha256").cast_column(column, feature)
            found = next(iter(attached))[column]
            assert (found if column == "video" else found[0]) == {"bytes": None, "path": str(media / "b" / "a.mp4")}

    stream = load(tmp_path, "qa", split="train", streaming=True)
    (media / "b" / "a.mp4").write_bytes(b"bull")
    next(iter(attach_videos(stream, media).cast_column("video", datasets.Video(decode=False))))
    with pytest.raises(MissingMediaError, match="sha256 is .* is expected: it is another"):
        next(iter(attach_videos(stream, media, verify="sha256")))
    (media / "b" / "a.mp4").write_bytes(b"bells")
    with pytest.raises(MissingMediaError, match="5 bytes, but 4 are expected"):
        next(iter(attach_videos(stream, media)))
    (media / "b" / "a.mp4").unlink()
    with pytest.raises(MissingMediaError, match="fetch it to this place; it came from https://example.org/a"):
        next(iter(attach_videos(stream, media)))
    with pytest.raises(ValueError, match="not 'eyes'"):
        attach_videos(stream, media, verify="eyes")
    with pytest.raises(DatasetWriteError, match="does not lie below"):
        media_reference(Path(__file__), media)


def test_every_kind_of_row_can_be_written():
    assert set(ROWS) == set(hub_folder.CONFIGS)

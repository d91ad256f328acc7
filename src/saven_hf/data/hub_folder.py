"""A dataset as a folder that `load_dataset` opens and the Hub shows: parquet shards and a card.

    with dataset_folder("savenvid") as folder:  # appears under its name when it is complete
        write_split(folder, "qa", "train", rows)
        write_split(folder, "captions", "train", segments)
        write_card(folder, Card("SAVEn-Vid", sources={"own": "CC-BY-4.0"}))

        data/<config>/<split>-00000-of-00003.parquet
        README.md        configurations, statistics, licence of each source

Videos are embedded, so that a shard is whole by itself and opens on any machine, or given by reference (`media`: name,
hash and times) where they are too long or may not be passed on; `attach_videos` finds those again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards import render
from ..files import written_whole
from ..version import __version__
from .messages import DataError, MissingMediaError
from .prompts import LETTERS
from .schema import CONFIGS, OPTIONS, QUESTION_TYPES, Media, features, validate_row


if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

SHARD_BYTES = 500_000_000
# Whoever streams holds a row group in memory, in which a video that several rows share is there for each of them.
ROWS_PER_GROUP, GROUP_BYTES = 100, 100_000_000
_TEXT_BYTES = 4096  # room for the text of a row, when asking whether a row group still fits into a shard
# Identifiers of the Hub that a licence in words may stand for.
_LICENCES = ("apache-2.0", "mit", "cc0-1.0", *(f"cc-by{kind}-4.0" for kind in ("", "-sa", "-nc", "-nc-sa", "-nd")))
_MARK = "saven_hf_dataset"  # key of the card: this folder may be replaced by another run


class DatasetWriteError(DataError):
    """A dataset that cannot be written as asked."""


# -------------------------------------------------------------------------------------------------------------- folder


@contextmanager
def dataset_folder(out: str | os.PathLike) -> Iterator[Path]:
    """A folder to write a dataset to. It gets its own name when all went well; else nothing is left.

    Args:
        out: new, empty, or a folder that this wrote before, which is replaced.

    Raises:
        DatasetWriteError: `out` holds anything else.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_ours(out))):
        raise DatasetWriteError("it holds other files: give a folder that is new or empty.", out)
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            old = out.with_name(f"{out.name}.{os.getpid()}.old.partial")
            os.rename(out, old)
            os.rename(partial, out)
            shutil.rmtree(old)
        else:
            os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    card = folder / "README.md"
    return card.is_file() and f"{_MARK}:" in card.read_text(encoding="utf-8").partition("\n---")[0]


def shards(folder: str | os.PathLike, config: str, split: str | None = None) -> list[Path]:
    """Parquet files of a configuration, or of one of its splits, in order."""
    return sorted(Path(folder, "data", config).glob(f"{split or '*'}-?????-of-?????.parquet"))


def splits(folder: str | os.PathLike, config: str) -> list[str]:
    """Splits that a configuration has, by name."""
    return sorted({shard.name[: -len("-00000-of-00000.parquet")] for shard in shards(folder, config)})


def read_rows(
    folder: str | os.PathLike, config: str, split: str | None = None, without: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Rows of a folder of datasets as they are stored, a row group at a time; videos as `{"bytes", "path"}`.

    Args:
        without: columns to leave out, such as "video", which are then not read at all.
    """
    from pyarrow import parquet

    for shard in shards(folder, config, split):
        with parquet.ParquetFile(shard) as file:
            kept = [name for name in file.schema_arrow.names if name not in without]
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=kept).to_pylist()


# ------------------------------------------------------------------------------------------------------------- parquet


def write_split(
    folder: str | os.PathLike,
    config: str,
    split: str,
    rows: Iterable[Mapping[str, Any]],
    embed: bool = True,
    shard_bytes: int = SHARD_BYTES,
    rows_per_group: int = ROWS_PER_GROUP,
) -> int:
    """Write rows as a split of a configuration, as they come; at most a row group of them is held.

    Put rows of the same video next to each other: its bytes are then stored once for all of them.

    Args:
        folder: of the dataset; see `dataset_folder`.
        config: "qa", "captions", "videos" or "sft".
        split: such as "train".
        rows: of the configuration, each checked by `validate_row`. A video is a path or bytes.
        embed: store the videos' bytes; else none of them, and rows must have their `media`.
        shard_bytes: most bytes of a file.
        rows_per_group: most rows of a row group; there are fewer where their videos pass 100 MB.

    Returns:
        How many rows were written.

    Raises:
        RowError: a row that is not valid.
        MissingMediaError: a video is not there.
        DatasetWriteError: there is not a single row, the split is there already, or a video is too large to embed.
    """
    if shards(folder, config, split):
        raise DatasetWriteError(f"the configuration {config!r} has the split {split!r} already.", folder)
    parent = Path(folder, "data", config)
    parent.mkdir(parents=True, exist_ok=True)
    stored = _stored(rows, config, embed, shard_bytes)
    partials: list[Path] = []
    count = 0
    try:
        writer = None
        for group, size in _row_groups(stored, rows_per_group):
            if writer is not None and writer.size + size > shard_bytes:
                writer.close()
                writer = None
            if writer is None:
                partials.append(parent / f"{split}-{len(partials):05d}.{os.getpid()}.partial")
                writer = _ParquetFile(partials[-1], features(config))
            writer.write(group)
            count += len(group)
        if writer is None:
            raise DatasetWriteError(f"there is not a single row for {config!r}, split {split!r}.", folder)
        writer.close()
        for number, partial in enumerate(partials):
            os.replace(partial, parent / f"{split}-{number:05d}-of-{len(partials):05d}.parquet")
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return count


def write_parquet(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], row_features) -> None:
    """Write rows as one parquet file of small row groups; the file appears when it is complete.

    Args:
        rows: with videos as `{"bytes", "path"}`; they are stored as they are, and not checked.
        row_features: `datasets.Features` of the rows.
    """
    with written_whole(path) as partial:
        file = _ParquetFile(Path(partial), row_features)
        for group, _ in _row_groups(rows):
            file.write(group)
        file.close()


class _ParquetFile:
    """A parquet file that is written a row group at a time."""

    def __init__(self, path: Path, row_features):
        # Not Dataset.to_parquet: it turns off the dictionary of video columns, which stores the bytes of a video that
        # several rows share once. pyarrow comes with the datasets library.
        from pyarrow import parquet

        self._schema = row_features.arrow_schema
        self._file = open(path, "wb")
        self._writer = parquet.ParquetWriter(self._file, self._schema, dictionary_pagesize_limit=1 << 30)

    @property
    def size(self) -> int:
        """Bytes that are written; the file's foot comes on top."""
        return self._file.tell()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow

        table = pyarrow.Table.from_pylist(list(rows), schema=self._schema)
        self._writer.write_table(table, row_group_size=len(rows))

    def close(self) -> None:
        self._writer.close()
        self._file.close()


def _row_groups(
    rows: Iterable[Mapping[str, Any]], rows_per_group: int = ROWS_PER_GROUP
) -> Iterator[tuple[list[Mapping[str, Any]], int]]:
    """Rows in groups that are small when they are read, and about how many bytes each takes on disk at most."""
    group: list[Mapping[str, Any]] = []
    read = 0
    for row in rows:
        size = sum(map(len, _contents(row)))
        if group and (len(group) == rows_per_group or read + size > GROUP_BYTES):
            yield group, _stored_bytes(group)
            group, read = [], 0
        group.append(row)
        read += size
    if group:
        yield group, _stored_bytes(group)


def _stored_bytes(group: Sequence[Mapping[str, Any]]) -> int:
    distinct = {content for row in group for content in _contents(row)}
    return sum(map(len, distinct)) + _TEXT_BYTES * len(group)


def _contents(row: Mapping[str, Any]) -> list[bytes]:
    files = [row.get("video"), *(row.get("videos") or ())]
    return [file["bytes"] for file in files if file is not None and file["bytes"] is not None]


def _stored(rows: Iterable[Mapping[str, Any]], config: str, embed: bool, shard_bytes: int) -> Iterator[dict[str, Any]]:
    """Rows as they are stored: checked, their videos embedded or left out."""
    last: tuple[str, dict] | None = None  # the video of the row before, which is often the same
    for row in rows:
        validate_row(row, config)
        row = dict(row)
        file = row.get("video") or next(iter(row.get("videos") or ()), None)
        if embed and file is not None:
            if file["bytes"] is not None:
                file = {"bytes": file["bytes"], "path": file["path"] and os.path.basename(file["path"])}
            else:
                if last is None or last[0] != file["path"]:
                    last = file["path"], _embedded(file["path"])
                file = last[1]
            if len(file["bytes"]) > shard_bytes - _TEXT_BYTES * 2:
                raise DatasetWriteError(
                    f"the video {row['video_id']!r} has {len(file['bytes'])} bytes, but a shard has at most "
                    f"{shard_bytes}: write it by reference (embed=False, with `media`)."
                )
        elif file is not None and row["media"] is None:
            raise DatasetWriteError(
                f"the row of {row['video_id']!r} has no 'media': without its video nothing says which it is about."
            )
        if "video" in row:
            row["video"] = file if embed else None
        if "videos" in row:
            row["videos"] = [file] if embed and file is not None else []
        yield row


def _embedded(path: str) -> dict[str, Any]:
    try:
        return {"bytes": Path(path).read_bytes(), "path": os.path.basename(path)}
    except OSError as error:
        raise MissingMediaError(f"the video cannot be read ({error.strerror}).", path) from None


# ----------------------------------------------------------------------------------------------------------- reference


def media_reference(
    path: str | os.PathLike,
    root: str | os.PathLike | None = None,
    origin: str | None = None,
    start: float | None = None,
    end: float | None = None,
) -> Media:
    """What says which file a row is about.

    Args:
        path: of the file.
        root: the folder of media that names count from; the file's own folder by default.
        origin, start, end: see `Media`.

    Raises:
        MissingMediaError: there is no such file.
        DatasetWriteError: it does not lie below `root`.
    """
    path = Path(path)
    try:
        name = path.relative_to(path.parent if root is None else root).as_posix()
    except ValueError:
        raise DatasetWriteError(f"the file does not lie below {os.fspath(root)}.", path) from None
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _sha256(file)
            size = file.tell()
    except OSError as error:
        raise MissingMediaError(f"the file cannot be read ({error.strerror}).", path) from None
    return Media(file=name, sha256=digest.hexdigest(), size=size, origin=origin, start=start, end=end)


def _sha256(file):  # Python 3.10
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest


def attach_videos(dataset, root: str | os.PathLike, verify: str = "size"):
    """A dataset whose rows give their videos by reference, with the files in its column `video` or `videos`.

    Args:
        dataset: `Dataset` or `IterableDataset` of the configuration "qa", "videos" or "sft".
        root: folder of the media.
        verify: compare each file with its reference by "size", by "sha256" (reads all of it), or not ("none").

    Returns:
        The same kind of dataset; a streaming one looks for a file when its row comes.

    Raises:
        ValueError: no such way to verify.
        MissingMediaError: where a row comes whose file is not there, or is another one.
    """
    if verify not in ("size", "sha256", "none"):
        raise ValueError(f"Files are verified by 'size', 'sha256' or 'none', not {verify!r}.")
    row_features = dataset.features
    column = "videos" if "videos" in row_features else "video"
    root = Path(root)

    def attach(media: Mapping[str, Any] | None) -> dict[str, Any]:
        if media is None:
            raise MissingMediaError("a row has no 'media': only videos given by reference can be attached.")
        file = {"bytes": None, "path": str(found_file(media, root, verify))}
        return {column: [file] if column == "videos" else file}

    return dataset.map(attach, input_columns=["media"], features=row_features)


def found_file(media: Mapping[str, Any], root: str | os.PathLike, verify: str = "size") -> Path:
    """The file that a reference names; see `attach_videos`.

    Raises:
        MissingMediaError: it is not there, or is another one.
    """
    path = Path(root, media["file"])
    if not path.is_file():
        origin = f"; it came from {media['origin']}" if media["origin"] else ""
        raise MissingMediaError(f"there is no such file: fetch it to this place{origin}.", path)
    size = path.stat().st_size
    if verify != "none" and size != media["size"]:
        raise MissingMediaError(f"the file has {size} bytes, but {media['size']} are expected: it is another.", path)
    if verify == "sha256":
        found = media_reference(path)["sha256"]
        if found != media["sha256"]:
            raise MissingMediaError(
                f"the file's sha256 is {found}, but {media['sha256']} is expected: it is another.", path
            )
    return path


# ---------------------------------------------------------------------------------------------------------------- card


@dataclass(frozen=True)
class Card:
    """What the card says that rows do not.

    Attributes:
        name: of the dataset, for people.
        about: text below the heading (Markdown).
        sources: licence or terms of each source (the rows' column `source`), in words.
        license: of the dataset, an identifier of the Hub; used where the sources do not all have one known licence.
        paper: what the paper reports, by line of the table of sizes; shown beside what is here.
        tags: for the Hub.
    """

    name: str
    about: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    license: str = "other"
    paper: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ("video", "audio", "audio-visual", "long-video")


def write_card(folder: str | os.PathLike, card: Card) -> dict[str, Any]:
    """Write README.md of a folder of datasets: configurations, statistics, licences; call it last.

    Returns:
        The statistics, by configuration and split; see `statistics`.

    Raises:
        DatasetWriteError: there are no rows, or some are of a source whose licence is not given.
    """
    found = statistics(folder)
    if not found:
        raise DatasetWriteError("there are no rows to write a card for.", folder)
    counts = _source_counts(folder)
    unknown = sorted(set(counts) - set(card.sources))
    if unknown:
        raise DatasetWriteError(
            f"rows are of the source {unknown[0]!r}, whose licence the card does not give: "
            f"name it in `sources`, which has {', '.join(sorted(card.sources)) or 'none'}.",
            folder,
        )
    card = replace(card, license=_licence(card, counts))
    metadata = card_metadata(folder, card, found, **{_MARK: __version__})
    text = render("dataset", metadata, **_card_values(card, found, counts))
    with written_whole(Path(folder) / "README.md") as partial:
        Path(partial).write_text(text, encoding="utf-8")
    return found


def card_metadata(
    folder: str | os.PathLike, card: Card, found: Mapping[str, Iterable[str]], **more: Any
) -> DatasetCardData:
    """The metadata of a folder's card: configurations, whose splits are in `found`, and their sizes.

    `load_dataset` knows the cache of a local folder by its name and its card, not by its files. So each configuration
    has the sum of its shards there: without it, a folder that was made anew would be read as it was.
    """
    from huggingface_hub import DatasetCardData
    from pyarrow import parquet

    configs, infos = [], []
    for config, of_config in found.items():
        files, sizes, packed, digest = [], [], 0, hashlib.sha256()
        for split in of_config:
            files.append({"split": split, "path": f"data/{config}/{split}-*.parquet"})
            size = {"name": split, "num_bytes": 0, "num_examples": 0}
            for path in shards(folder, config, split):
                shard, metadata = media_reference(path), parquet.read_metadata(path)
                digest.update(shard["sha256"].encode())
                packed += shard["size"]
                size["num_bytes"] += sum(
                    metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups)
                )
                size["num_examples"] += metadata.num_rows
            sizes.append(size)
        infos.append({
            "config_name": config,
            "description": f"shards {digest.hexdigest()[:16]}",
            "splits": sizes,
            "download_size": packed,
            "dataset_size": sum(one["num_bytes"] for one in sizes),
        })  # fmt: skip
        configs.append({"config_name": config, **({"default": True} if config == "qa" else {}), "data_files": files})
    return DatasetCardData(
        pretty_name=card.name,
        license=card.license,
        language=["en"],
        task_categories=["video-text-to-text"],
        tags=list(card.tags),
        configs=configs,
        dataset_info=infos,
        **more,
    )


def _licence(card: Card, counts: Iterable[str]) -> str:
    """The Hub's identifier of the one licence that all sources have, such as "cc-by-4.0" of "CC BY 4.0"."""
    known = {card.sources[source].partition(" (")[0].strip().lower().replace(" ", "-") for source in counts}
    return known.pop() if len(known) == 1 and known <= set(_LICENCES) else card.license


def _card_values(card: Card, found: Mapping, counts: Mapping[str, Counter]) -> dict[str, Any]:
    """What `hub_configs/cards/dataset.md.jinja` asks for."""
    lines = []
    for split, one in found.get("qa", {}).items():
        letters = ", ".join(f"{letter} {one['answers'].get(letter, 0)}" for letter in LETTERS[:OPTIONS])
        formats = ", ".join(f"{kind} {one['question_types'].get(kind, 0)}" for kind in QUESTION_TYPES)
        lines.append(f"Questions of `{split}`: by format {formats}; right answers {letters}.")
    for split, one in found.get("sft", {}).items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(one["kinds"].items()))
        lines.append(f"Rows to train on of `{split}`: {kinds}.")
    sources = [(source, sum(rows.values()), card.sources[source]) for source, rows in sorted(counts.items())]
    return {
        "name": card.name, "about": card.about, "paper": card.paper, "found": found, "sizes": _sizes(found),
        "counts": lines, "sources": sources,
    }  # fmt: skip


def _sizes(found: Mapping) -> dict[str, str]:
    """The lines that the paper states, for the rows that are here."""
    videos: dict[str, float] = {}
    for of_config in found.values():
        for one in of_config.values():
            videos.update(one["durations"])
    questions = sum(one["rows"] for one in found.get("qa", {}).values())
    kinds = sum((Counter(one["kinds"]) for one in found.get("sft", {}).values()), Counter())
    instructions = sum(kinds.values())
    captions = instructions - kinds["question"]
    mean = f"{sum(videos.values()) / len(videos):.1f} s" if videos else ""
    return {
        "questions": str(questions),
        "instructions": str(instructions),
        "instructions: captions": str(captions),
        "instructions: questions": str(kinds["question"]),
        "mean length of a video": mean,
    }


def statistics(folder: str | os.PathLike) -> dict[str, dict[str, dict[str, Any]]]:
    """What a folder holds, by configuration and split; videos are not read.

    Returns:
        For each split "rows", "videos" (distinct), "seconds" (of all distinct videos; 0.0 where rows hold no
        durations), "mean_seconds", "durations" (by video_id); for "qa" also "answers" and "question_types", for "sft"
        "kinds", as counts.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for config in CONFIGS:
        for split in splits(folder, config):
            rows, durations, videos = 0, {}, set()
            answers, question_types, kinds = Counter(), Counter(), Counter()
            for row in read_rows(folder, config, split, without=("video", "videos", "messages", "media")):
                rows += 1
                videos.add(row["video_id"])
                if "duration" in row:
                    durations[row["video_id"]] = row["duration"]
                answers[row.get("answer")] += 1
                question_types[row.get("question_type")] += 1
                kinds[row.get("kind")] += 1
            seconds = sum(durations.values())
            one = {"rows": rows, "videos": len(videos), "seconds": seconds, "durations": durations}
            one["mean_seconds"] = seconds / len(durations) if durations else 0.0
            one |= {"answers": dict(answers), "question_types": dict(question_types)} if config == "qa" else {}
            one |= {"kinds": dict(kinds)} if config == "sft" else {}
            found.setdefault(config, {})[split] = one
    return found


def _source_counts(folder: str | os.PathLike) -> dict[str, Counter]:
    """How many rows of each configuration a source has."""
    heavy = ("video", "videos", "messages", "media", "checks")
    counts: dict[str, Counter] = {}
    for config in CONFIGS:
        for row in read_rows(folder, config, without=heavy):
            if "source" in row:
                counts.setdefault(row["source"], Counter())[config] += 1
    return counts

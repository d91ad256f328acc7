"""The rows that a stage learns from: JSONL files, datasets, any Python iterable; mixed, cached, as maps or streams.

A sample is `{"row": row of messages, "index": its number}`; tokens and media are made by the collator, in the workers
of the data loader, so that nothing heavy is prepared ahead or sent between processes.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from ..data.messages import COLUMNS, DataError, attach_media, read_messages
from ..data.readers import open_reader
from ..savenvideo.tower_features import TowerFeatures
from .cache import FeatureCache, part_of_row
from .media import without_sound
from .recipe import DataSource


class PackedRows(Sequence):
    """Rows of messages in memory, as bytes.

    Args:
        rows: rows that JSON can hold.
        where: they come from, for the error.

    Raises:
        DataError: there are none; and what iterating over `rows` raises.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], where: str | os.PathLike | None = None):
        encoded = [json.dumps(row).encode() for row in rows]
        if not encoded:
            raise DataError("there are no rows in it.", where)
        # One block of bytes: workers that are forked share it, which they would not do with a million objects.
        self._ends = np.cumsum([len(row) for row in encoded])
        self._bytes = b"".join(encoded)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each row."""
        return np.diff(self._ends, prepend=0)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = self._ends[index - 1] if index else 0
        return json.loads(self._bytes[start : self._ends[index]])


class MappedRows(Sequence):
    """Rows of another sequence, changed when they are read."""

    def __init__(self, rows: Sequence, change: Callable[[Mapping[str, Any]], dict[str, Any]]):
        self.rows, self._change = rows, change

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._change(self.rows[index])


def build_dataset(
    sources: Sequence[DataSource | Sequence | Iterable], seed: int = 0, skip: int = 0
) -> datasets.Dataset | datasets.IterableDataset:
    """One dataset of samples from all sources.

    Args:
        sources: `DataSource`s of a recipe; or rows of messages, as a sequence (of any objects with `len`) or as an
            iterable, which is read as a stream. A callable makes the iterable anew for every pass.
        seed: of the mix.
        skip: samples of a stream that were trained on before.

    Returns:
        A map-style dataset, or an endless stream where any source is one. Weighted sources are drawn from until each
        was seen once.
    """
    opened = [open_source(source) for source in sources]
    weights = [source.weight if isinstance(source, DataSource) else None for source in sources]
    if not opened:
        raise DataError("There is no data: name a source in `data`, or pass rows.")
    if all(_is_map(rows) for rows in opened):
        return _map_style(opened, weights, seed)
    return RowStream(lambda: _mixed(opened, weights, seed), skip)


def open_source(source: DataSource | Sequence | Iterable) -> Sequence | Iterable:
    """Rows of one source, its media read from its cache if it has one, its videos without sound if it says so."""
    if not isinstance(source, DataSource):
        return source
    rows = _open_rows(source)
    return rows if source.use_audio else _changed(rows, lambda row: with_media(row, without_sound))


def _open_rows(source: DataSource) -> Sequence | Iterable:
    if source.reader is not None:
        rows = PackedRows(open_reader(source.reader, source.path, source.media_root, **source.options), source.path)
    elif Path(source.path).suffix in (".jsonl", ".json", ".ndjson"):
        rows = PackedRows(read_messages(source.path), source.path)
    else:
        rows = _open_dataset(source)
    if source.cache is None:
        return rows
    cache = FeatureCache(source.cache, source.media_root)

    def cached(row: Mapping[str, Any]) -> dict[str, Any]:
        def features_of(kind: str, medium: Any) -> TowerFeatures:
            features = cache[part_of_row(row, kind, medium)]
            # The file may be a video of which the row gives the sound alone.
            return features.without_picture() if kind == "audio" else features

        encoded = with_media(row, features_of)
        return {key: value for key, value in encoded.items() if key not in ("start", "end")}

    return _changed(rows, cached)


def with_media(row: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A row whose media are replaced by `change(kind, medium)`."""
    messages = [
        message
        if isinstance(message["content"], str)
        else {
            "role": message["role"],
            "content": [
                block
                if block["type"] == "text"
                else {**block, block["type"]: change(block["type"], block[block["type"]])}
                for block in message["content"]
            ],
        }
        for message in attach_media(row)
    ]
    return {**{key: value for key, value in row.items() if key not in COLUMNS.values()}, "messages": messages}


def _open_dataset(source: DataSource) -> Sequence | datasets.IterableDataset:
    try:
        config = source.config
        if config is None and "sft" in datasets.get_dataset_config_names(source.path):
            config = "sft"
        rows = datasets.load_dataset(source.path, config, split=source.split, streaming=source.streaming)
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"{source.path!r} is neither a JSONL file nor a dataset that can be opened: {error}"
        ) from error
    if rows.column_names is not None and "messages" not in rows.column_names:
        raise DataError(
            f"The rows of {source.path!r} have no column 'messages' (they have {', '.join(rows.column_names)}): name "
            "the configuration to train on with `data.0.config=NAME`."
        )
    # Media stay files: the processor decodes what it takes of them.
    for column, feature in (rows.features or {}).items():
        if _undecoded(feature) != feature:
            rows = rows.cast_column(column, _undecoded(feature))
    root = Path(source.media_root or (source.path if os.path.isdir(source.path) else "."))

    def located(kind: str, medium: Any) -> Any:
        if isinstance(medium, str):
            return str(root / medium)
        if isinstance(medium, Mapping) and medium.get("bytes") is None and medium.get("path"):
            return {**medium, "path": str(root / medium["path"])}
        return medium

    return _changed(rows, lambda row: with_media(row, located))


def _undecoded(feature: Any) -> Any:
    """A feature of `datasets` that leaves its files as they are."""
    if isinstance(feature, datasets.List):
        return datasets.List(_undecoded(feature.feature))
    return replace(feature, decode=False) if getattr(feature, "decode", False) else feature


def _changed(rows: Sequence | Iterable, change: Callable) -> Sequence | Iterable:
    if _is_map(rows):
        return MappedRows(rows, change)
    return lambda: map(change, _pass_over(rows))


def _is_map(rows: Any) -> bool:
    return hasattr(rows, "__len__") and hasattr(rows, "__getitem__")


def _pass_over(rows: Iterable | Callable[[], Iterable]) -> Iterator:
    return iter(rows() if callable(rows) else rows)


# ---------------------------------------------------------------------------------------------------------- map-style


def _map_style(sources: list[Sequence], weights: list[float | None], seed: int) -> datasets.Dataset:
    """Numbers of rows, mixed by `datasets`; the rows themselves may be anything, and are looked up when asked for."""
    for number, rows in enumerate(sources):
        if not len(rows):
            raise DataError(f"Source {number} of {len(sources)} holds no rows.")
    parts = [
        datasets.Dataset.from_dict(
            {"source": np.full(len(rows), number), "row": np.arange(len(rows)), "size": _sizes(rows)}
        )
        for number, rows in enumerate(sources)
    ]
    if len(parts) == 1:
        mixed = parts[0]
    elif weights[0] is None:
        mixed = datasets.concatenate_datasets(parts)
    else:
        probabilities = [weight / sum(weights) for weight in weights]
        mixed = datasets.interleave_datasets(
            parts, probabilities=probabilities, seed=seed, stopping_strategy="all_exhausted"
        )
    firsts = np.cumsum([0, *map(len, sources)])

    def look_up(batch: Mapping[str, list]) -> dict[str, list]:
        pairs = list(zip(batch["source"], batch["row"], strict=True))
        return {
            "row": [sources[number][row] for number, row in pairs],
            "index": [int(firsts[number]) + row for number, row in pairs],
        }

    return mixed.with_transform(look_up)


def _sizes(rows: Sequence) -> np.ndarray:
    """About how long each row is, where that is known without reading them all from somewhere; else zeros."""
    while isinstance(rows, MappedRows):
        rows = rows.rows
    if isinstance(rows, PackedRows):
        return rows.sizes
    if isinstance(rows, (list, tuple)):
        return np.array([sum(len(str(message["content"])) for message in row["messages"]) for row in rows])
    return np.zeros(len(rows), np.int64)


class LengthGroupedSampler(torch.utils.data.Sampler):
    """Rows in random order, but neighbours of about one length: a batch is padded to its longest row.

    Without it half of all tokens of a mix of captions and short answers were padding. The order follows from seed and
    epoch alone, so that a resumed run goes on in it.

    Args:
        sizes: of all rows, in any unit.
        group: rows that are computed at once, in all processes.
        epoch: gives the number of the epoch that begins.
        pool: groups that are drawn together and sorted: the larger, the less padding and the less chance.
    """

    def __init__(self, sizes: np.ndarray, group: int, seed: int, epoch: Callable[[], int], pool: int = 32):
        self._sizes, self._group, self._seed, self._epoch, self._pool = sizes, group, seed, epoch, pool

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self._seed, self._epoch()])
        order = generator.permutation(len(self._sizes))
        for first in range(0, len(order), self._group * self._pool):
            pool = order[first : first + self._group * self._pool]
            pool = pool[np.argsort(self._sizes[pool], kind="stable")]
            whole = len(pool) // self._group * self._group
            for group in generator.permutation(pool[:whole].reshape(-1, self._group)):
                yield from group.tolist()
            yield from pool[whole:].tolist()


# ------------------------------------------------------------------------------------------------------------- streams


class RowStream(datasets.IterableDataset):
    """Samples of an endless iteration over rows, dealt out by number: sample i to process i modulo their number.

    Every process and worker reads the whole stream, of rows and not of media, and keeps its own samples. So all
    workers decode, whatever the stream comes from, and the rows of an update are the same for any number of processes.

    Args:
        rows: makes the iteration anew.
        skip: samples that were trained on before.
    """

    # As many as anyone asks for: accelerate has a dataset with fewer shards than processes read by all of them alike.
    n_shards = num_shards = 1 << 30

    def __init__(self, rows: Callable[[], Iterator[Any]], skip: int = 0, processes: int = 1, process: int = 0):
        nothing = datasets.iterable_dataset.ExamplesIterable(lambda: iter(()), {})
        super().__init__(nothing)
        self._rows, self._skip, self._processes, self._process = rows, skip, processes, process

    def shard(self, num_shards: int, index: int, contiguous: bool = True) -> RowStream:
        """The part of process `index` of `num_shards`."""
        return RowStream(self._rows, self._skip, num_shards, index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        parts = self._processes * (worker.num_workers if worker else 1)
        part = self._process + self._processes * (worker.id if worker else 0)
        for index, row in enumerate(self._rows()):
            if index >= self._skip and index % parts == part:
                yield {"row": row, "index": index}


def _mixed(sources: list[Sequence | Iterable], weights: list[float | None], seed: int) -> Iterator[Any]:
    """Rows of all sources for ever, drawn by weight; evenly without weights."""
    chooser = random.Random(seed)
    passes = [_endless(rows, number) for number, rows in enumerate(sources)]
    chances = None if weights[0] is None else weights
    while True:
        yield next(passes[0] if len(passes) == 1 else chooser.choices(passes, chances)[0])


def _endless(rows: Sequence | Iterable, number: int) -> Iterator[Any]:
    while True:
        seen = False
        for row in _pass_over(rows):
            seen = True
            yield row
        if not seen:
            raise DataError(
                f"Source {number} ran out of rows: an iterator can be read once, so pass a function that makes it "
                "anew, or set max_steps to what it holds."
            )

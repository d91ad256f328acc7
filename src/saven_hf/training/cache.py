"""Outputs of the frozen towers, stored once and trained from many times: `saven cache`.

The towers never learn, and decoding and running them is most of a training step. A cache is a folder:

    cache.json                    which towers, preprocessing, sampling and dtype: one of each in a cache
    <16 digits>.safetensors       some hundred megabytes of media, packed

A shard holds the tensors of `TowerFeatures` of all its media one after the other, so that reading one medium is
a few slices of mapped memory (our decision; one file a medium was five times slower to read, and a few million files
are a burden to any file system). Shards appear whole or not at all and never change: any number of processes may add
to a cache, a killed run is started again with the same command, and what is there may be read meanwhile.

A medium is known by its content (its size and the hash of its first and last 64 KiB), so folders may be moved and
files renamed; where the file itself is not at hand, by its path below the root that it was cached with.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from ..data.messages import media_of, read_messages
from ..files import written_whole
from ..savenvideo.tower_features import TowerFeatures


FORMAT = "savenvideo-feature-cache-1"
MANIFEST = "cache.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Bytes of each end of a file that tell it from others.
_END_BYTES = 1 << 16
_SHARD_BYTES = 1 << 28
# Shards that a reader keeps mapped.
_OPEN_SHARDS = 256
_FRAME_TENSORS, _COLUMN_TENSORS = ("picture", "frame_times"), ("sound", "column_times")
# Only in caches of models with a speech tower.
_SPEECH_TENSORS = ("speech", "speech_times")


class FeatureCacheError(ValueError):
    """A cache that does not fit the model, the processor or the request."""


class NotCachedError(FeatureCacheError, KeyError):
    """A medium that is not in the cache."""

    __str__ = Exception.__str__  # a KeyError would show its message in quotes


@dataclass(frozen=True)
class CacheSettings:
    """What all media of a cache have in common.

    encoder_hash, preprocessing_hash, sampling: as in `TowerFeatures`; dtype: of the stored features, by name.
    """

    encoder_hash: str
    preprocessing_hash: str
    sampling: dict
    dtype: str

    @classmethod
    def of(cls, model, processor, dtype: str | torch.dtype | None = None, **videos_kwargs) -> CacheSettings:
        """Of the cache that this model and processor would make.

        Raises:
            FeatureCacheError: the frames would depend on the question, or features cannot be stored in this dtype.
        """
        dtype = str(dtype or model.base_model.vision_tower.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise FeatureCacheError(f"Features are stored as one of {', '.join(DTYPES)}, not as {dtype}.")
        settings = processor.video_processor.settings(**videos_kwargs)
        sampling = processor.video_processor.sampling_of(settings)
        if sampling["sampling"] == "query":
            raise FeatureCacheError(
                "sampling='query' takes other frames for every question, so nothing can be cached ahead: cache with "
                "'fps' or 'uniform'."
            )
        return cls(
            model.base_model.tower_fingerprint(),
            processor.tower_preprocessing_hash(**videos_kwargs),
            # As it comes back from a file.
            json.loads(json.dumps(sampling)),
            dtype,
        )

    def check(self, other: CacheSettings, where: str) -> None:
        """Raise a `FeatureCacheError` that names the first of these settings that `other` does not share."""
        names = {
            "encoder_hash": ("towers", "cache the media again with this model, into another folder"),
            "preprocessing_hash": ("preprocessing", "use the processor it was made with, or cache again"),
            "sampling": ("frames", "sample as the cache does, or cache again into another folder"),
            "dtype": ("dtype", "leave the dtype as it is, or cache into another folder"),
        }
        for name, (noun, advice) in names.items():
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                mine, others = (_in_words(value) for value in (mine, others))
                raise FeatureCacheError(f"{where} was made with {noun} {mine}, not {others}: {advice}.")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items() if part is not None)
    return str(value)[:16]


# ------------------------------------------------------------------------------------------------------ naming media


class Source(NamedTuple):
    """A medium to be cached: what the processor takes as a video, and the name to store it under."""

    medium: Any
    name: str


def list_media(source: str | os.PathLike | Iterable[Mapping], root: str | os.PathLike | None = None) -> list[Source]:
    """The media of a folder (searched through), of a JSONL file of messages, or of rows of messages, each once.

    Args:
        root: names are paths relative to it; by default the folder, or that of the file.

    Raises:
        FileNotFoundError: there is no such folder or file.
        FeatureCacheError: it holds no media, or one that has no path.
        DataError: a bad row.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            root = root or path
            files = sorted(file for file in path.rglob("*") if _is_media_name(file.name) and file.is_file())
            media = [{"path": str(file)} for file in files]
        elif path.is_file():
            root = root or path.parent
            media = _media_of_rows(read_messages(path))
        else:
            raise FileNotFoundError(f"{os.fspath(source)!r} is neither a folder of media nor a file of messages.")
    else:
        media = _media_of_rows(source)
    named: dict[str, Source] = {}
    for medium in media:
        name = media_name(medium, root)
        named.setdefault(name, Source(medium, name))
    if not named:
        raise FeatureCacheError(f"{source if isinstance(source, (str, os.PathLike)) else 'The rows'}: holds no media.")
    return list(named.values())


def _is_media_name(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").split("/")[0] in ("video", "audio", "image")


def _media_of_rows(rows: Iterable[Mapping]) -> Iterator[Any]:
    for row in rows:
        for kind, source in media_of(row):
            yield part_of_row(row, kind, source)


def part_of_row(row: Mapping, kind: str, source: Any) -> Any:
    """A medium of a row of messages as the processor takes it: with the row's `start` and `end`, if it has them."""
    part = {name: row[name] for name in ("start", "end") if row.get(name) is not None}
    if kind == "image" or not part:
        return source
    return {**(source if isinstance(source, Mapping) else {"path": source}), **part}


def media_name(medium: Any, root: str | os.PathLike | None = None) -> str:
    """The path of a medium relative to `root`, with forward slashes; a part of it as a media fragment (`#t=2,9.5`)."""
    path = medium.get("path") if isinstance(medium, Mapping) else medium
    if not isinstance(path, (str, os.PathLike)):
        raise FeatureCacheError(
            f"A {type(medium).__name__} without a path cannot be named in a cache: write it to a file."
        )
    return Path(os.path.relpath(path, root or os.curdir)).as_posix() + _fragment(medium)


def media_key(medium: Any) -> str | None:
    """What a medium is known by: the hash of its size and of its first and last 64 KiB. None if it is not there."""
    data = medium.get("bytes") if isinstance(medium, Mapping) else medium
    if isinstance(data, (bytes, bytearray, memoryview)):
        return _hash(len(data), bytes(data[:_END_BYTES]), bytes(data[-_END_BYTES:])) + _fragment(medium)
    path = medium.get("path") if isinstance(medium, Mapping) else medium
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return _file_hash(os.fspath(path), status.st_size, status.st_mtime_ns) + _fragment(medium)


@lru_cache(maxsize=1 << 16)
def _file_hash(path: str, size: int, modified: int) -> str:
    """`modified` only tells the cache of this function that the file is another one."""
    with open(path, "rb") as file:
        head = file.read(_END_BYTES)
        file.seek(max(0, size - _END_BYTES))
        return _hash(size, head, file.read(_END_BYTES))


def _hash(size: int, head: bytes, tail: bytes) -> str:
    return hashlib.sha256(b"%d:" % size + head + tail).hexdigest()[:32]


def _fragment(medium: Any) -> str:
    if not isinstance(medium, Mapping):
        return ""
    start, end = (medium.get(name) for name in ("start", "end"))
    if start is None and end is None:
        return ""
    start, end = ("" if time is None else f"{round(time * 1e6) / 1e6!r}" for time in (start, end))
    return f"#t={start}" + (f",{end}" if end else "")


# ------------------------------------------------------------------------------------------------------------ writing


@dataclass
class CacheReport:
    """What `build_cache` did: media encoded now, those that were there, and the ones that could not be read."""

    out: str
    encoded: int = 0
    kept: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.out}: {self.encoded} media encoded ({self.bytes / 1e6:.1f} MB, {self.seconds:.0f} s), {self.kept} "
            f"were there, {len(self.failed)} failed"
        )


def process_share() -> tuple[int, int]:
    """Rank and number of the processes of an `accelerate launch` or `torchrun`; (0, 1) outside of one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def build_cache(
    media: Iterable[Source],
    out_dir: str | os.PathLike,
    model,
    processor,
    *,
    dtype: str | torch.dtype | None = None,
    shard: int | None = None,
    num_shards: int | None = None,
    workers: int = 1,
    shard_bytes: int = _SHARD_BYTES,
    progress: bool = True,
    **videos_kwargs,
) -> CacheReport:
    """Run the towers over media and store what they say; what the folder has already is not encoded again.

    Args:
        media: of `list_media`.
        out_dir: of the cache; created, or added to.
        dtype: of the stored features, "float16" and "bfloat16" halve them; the towers' own if None.
        shard, num_shards: encode the `shard`-th of `num_shards` parts of the media. By default those of the process
            under `accelerate launch` or `torchrun`.
        workers: media that are decoded and encoded at a time, in threads.
        shard_bytes: size at which a file is written; as much work is lost when the process is killed.
        videos_kwargs: how to sample frames, as for the processor.

    Returns:
        `CacheReport`. A medium that cannot be read is in `failed`, with the reason; all others are stored.

    Raises:
        FeatureCacheError: the folder holds features of other towers, preprocessing, sampling or dtype.
    """
    began = time.perf_counter()
    rank, world_size = process_share()
    shard, num_shards = (rank if shard is None else shard), (world_size if num_shards is None else num_shards)
    if not 0 <= shard < num_shards:
        raise FeatureCacheError(
            f"Shard {shard} of {num_shards} was asked for: shards count from 0 to {num_shards - 1}."
        )
    towers = model.base_model.towers
    if any(tower.training for tower in towers):
        raise FeatureCacheError("The towers are in training mode, so what they say is random: call `model.eval()`.")
    settings = CacheSettings.of(model, processor, dtype, **videos_kwargs)
    out = Path(out_dir)
    _claim(out, settings)
    report = CacheReport(str(out_dir))
    done = FeatureCache(out)
    share = [source for index, source in enumerate(media) if index % num_shards == shard]
    waiting = [source for source in share if not done.has(media_key(source.medium))]
    report.kept = len(share) - len(waiting)

    def encode(source: Source) -> tuple[Source, str | None, TowerFeatures | Exception]:
        try:
            key = media_key(source.medium)
            features = model.encode_towers(source.medium, processor, **videos_kwargs)
            return source, key, _stored_as(features, DTYPES[settings.dtype])
        except FeatureCacheError:
            raise
        except (ValueError, OSError) as error:  # a `MediaError` is a ValueError
            return source, None, error

    shards = _ShardWriter(out, shard_bytes)
    bar = tqdm(total=len(share), initial=report.kept, unit="media", desc="cache", disable=not progress)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            for source, key, result in _in_order(pool, encode, waiting, 2 * workers):
                if isinstance(result, Exception):
                    report.failed[source.name] = str(result)
                else:
                    shards.add(key, source.name, result)
                    report.encoded += 1
                    report.bytes += result.nbytes
                bar.update()
        finally:
            # Also when interrupted: what was encoded is not lost.
            shards.flush()
    report.seconds = time.perf_counter() - began
    return report


def _claim(out: Path, settings: CacheSettings) -> None:
    """Say in a new folder what it is for; check it in one that was begun, perhaps by another process just now."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MANIFEST).is_file():
        if any(out.iterdir()) and not any(out.glob(f"{MANIFEST}*")):
            raise FeatureCacheError(f"{out} holds files, but no {MANIFEST}: choose an empty folder for the cache.")
        with written_whole(out / MANIFEST) as partial:
            Path(partial).write_text(json.dumps({"format": FORMAT, **asdict(settings)}, indent=2) + "\n")
    _read_manifest(out).check(settings, f"The cache {out}")


def _read_manifest(folder: Path) -> CacheSettings:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} is no feature cache: it has no {MANIFEST}. Make one with `saven cache`."
        ) from None
    except ValueError:
        raise FeatureCacheError(f"{folder / MANIFEST} is no JSON: the cache is damaged, make it again.") from None
    if not isinstance(manifest, dict) or manifest.pop("format", None) != FORMAT:
        raise FeatureCacheError(f"{folder} is no cache of the format {FORMAT!r}: make it again with `saven cache`.")
    return CacheSettings(**manifest)


def _stored_as(features: TowerFeatures, dtype: torch.dtype) -> TowerFeatures:
    stored = features.to(dtype=dtype)
    if not all(torch.isfinite(tensor).all() for tensor in (stored.picture, stored.sound, stored.speech)):
        raise FeatureCacheError(f"The features do not fit {dtype}: some are infinite or no numbers. Use bfloat16.")
    return stored


def _in_order(pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int) -> Iterator:
    """Results of `function` in the order of `items`; no more than `ahead` of them are waiting."""
    items = iter(items)
    futures = deque(pool.submit(function, item) for item in islice(items, ahead))
    try:
        while futures:
            yield futures.popleft().result()
            futures.extend(pool.submit(function, item) for item in islice(items, 1))
    finally:
        for future in futures:
            future.cancel()


class _ShardWriter:
    """Gathers features and writes them as one file when there are enough of them."""

    def __init__(self, folder: Path, shard_bytes: int):
        self._folder, self._shard_bytes = folder, shard_bytes
        self._start()

    def _start(self) -> None:
        self._media: list[tuple[str, str, TowerFeatures]] = []
        self._bytes = 0

    def add(self, key: str, name: str, features: TowerFeatures) -> None:
        self._media.append((key, name, features))
        self._bytes += features.nbytes
        if self._bytes >= self._shard_bytes:
            self.flush()

    def flush(self) -> None:
        if not self._media:
            return
        # The width of a tower that is not there is 0.
        hears_speech = self._media[0][2].speech.shape[-1] > 0
        tensors = {
            name: torch.cat([getattr(features, name) for _, _, features in self._media])
            for name in (*_FRAME_TENSORS, *_COLUMN_TENSORS, *(_SPEECH_TENSORS if hears_speech else ()))
        }
        rows = []
        for key, name, features in self._media:
            lengths = [len(features.frame_times), len(features.column_times), features.duration]
            rows.append((key, name, *lengths, *([len(features.speech_times)] if hears_speech else [])))
        # Named by what is in it: two processes never write different files of one name.
        digest = hashlib.sha256("".join(key for key, *_ in rows).encode()).hexdigest()[:16]
        with written_whole(self._folder / f"{digest}.safetensors") as partial:
            save_file(tensors, partial, metadata={"format": FORMAT, "media": json.dumps(rows)})
        self._start()


# ------------------------------------------------------------------------------------------------------------ reading


class _Row(NamedTuple):
    """Where a medium lies: in which shard, from which frame and column (of each tower) on, and how many of them."""

    shard: str
    first_frame: int
    frames: int
    first_column: int
    columns: int
    first_speech: int
    speech: int
    duration: int


class FeatureCache(Mapping):
    r"""Features by medium: `cache["videos/7.mp4"]` is the `TowerFeatures` to hand to the processor in its place.

    A medium is named as the processor takes it: a path, or a dict with `path` or `bytes` (and `start`, `end`).
    Iterating gives the names under which media were cached. Shards are mapped, not read, so the workers of a data
    loader share one copy. Features come as copies of their own, safe to change or to send elsewhere.

    Args:
        folder: that `build_cache` wrote.
        root: folder to which names are relative, for media that are not at hand: `cache["/data/videos/7.mp4"]` is
            looked up as `videos/7.mp4` if root is `/data`. Media at hand are known by their content.

    Attributes:
        settings: `CacheSettings`, which towers and frames these are.

    Raises:
        FileNotFoundError: the folder is no cache.
        FeatureCacheError: it is of another format, or damaged.
    """

    def __init__(self, folder: str | os.PathLike, root: str | os.PathLike | None = None):
        self._folder, self._root = Path(folder), root
        self.settings = _read_manifest(self._folder)
        self._rows: dict[str, _Row] = {}
        self._keys: dict[str, str] = {}
        self._shards: dict[str, dict[str, torch.Tensor]] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            self._index(path)

    def _index(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                media = json.loads((file.metadata() or {})["media"])
        except Exception as error:
            raise FeatureCacheError(
                f"{path} is no shard of a feature cache, or damaged: remove it and run `saven cache` again."
            ) from error
        first_frame = first_column = first_speech = 0
        for key, name, frames, columns, duration, *rest in media:
            speech = rest[0] if rest else 0
            self._rows[key] = _Row(
                path.name, first_frame, frames, first_column, columns, first_speech, speech, duration
            )
            self._keys[name] = key
            first_frame, first_column, first_speech = (
                first_frame + frames,
                first_column + columns,
                first_speech + speech,
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, medium: Any) -> bool:
        return self._find(medium) is not None

    def has(self, key: str | None) -> bool:
        """Whether there is a medium of this `media_key`."""
        return key in self._rows

    def __getitem__(self, medium: Any) -> TowerFeatures:
        """Features of a medium.

        Raises:
            NotCachedError: it is not there, or its file has changed since.
        """
        row = self._find(medium)
        if row is None:
            shown = medium
            if isinstance(medium, Mapping):
                shown = {name: value for name, value in medium.items() if name != "bytes"}
            part = "parts of files are cached from the rows that name them; " if _fragment(medium) else ""
            raise NotCachedError(
                f"{shown!r:.200} is not in the cache {self._folder} of {len(self)} media: it was not encoded, or its "
                f"file has changed since. Run `saven cache` again, which adds what is missing ({part}give `root` if "
                "the files themselves are not here)."
            )
        tensors = self._tensors(row.shard)
        frames = slice(row.first_frame, row.first_frame + row.frames)
        columns = slice(row.first_column, row.first_column + row.columns)
        speech = slice(row.first_speech, row.first_speech + row.speech)
        # Copies: sending a slice of a mapped file to another process would send all of the file.
        return TowerFeatures(
            **{name: tensors[name][frames].clone() for name in _FRAME_TENSORS},
            **{name: tensors[name][columns].clone() for name in _COLUMN_TENSORS},
            **{name: tensors[name][speech].clone() for name in _SPEECH_TENSORS if name in tensors},
            duration=row.duration,
            encoder_hash=self.settings.encoder_hash,
            preprocessing_hash=self.settings.preprocessing_hash,
            sampling=dict(self.settings.sampling),
        )

    def check(self, model, processor, **videos_kwargs) -> None:
        """Say so if these are not the features that the model and the processor would make themselves.

        Raises:
            FeatureCacheError: other towers, preprocessing or frames; both are named.
        """
        own = CacheSettings.of(model, processor, self.settings.dtype, **videos_kwargs)
        self.settings.check(own, f"The cache {self._folder}")

    def _find(self, medium: Any) -> _Row | None:
        key = media_key(medium)
        if key is None:
            key = self._keys.get(media_name(medium, self._root))
        return self._rows.get(key)

    def _tensors(self, shard: str) -> dict[str, torch.Tensor]:
        tensors = self._shards.get(shard)
        if tensors is None:
            with safe_open(self._folder / shard, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if len(self._shards) >= _OPEN_SHARDS:
                self._shards.pop(next(iter(self._shards)))
            self._shards[shard] = tensors
        return tensors

    def __getstate__(self) -> dict[str, Any]:
        # A mapped file does not travel to another process; that one maps it itself.
        return {**vars(self), "_shards": {}}

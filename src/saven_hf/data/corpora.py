"""The corpora that SAVEn-Vid and AVBench are made of, as they lie on disk: which videos, of which split.

    corpus = open_corpus("nextqa", "nextqa", split="train", missing="skip")
    for video in corpus:  # a SourceVideo: path, split, where it came from
        ...
    corpus.counts  # videos, and how many are missing

The paper takes the original split of each source for training and testing (section 3.1). Nothing is downloaded.

    videomme    ROOT/videomme/test-*.parquet, ROOT/{data,video,videos}/<videoID>.mp4, ROOT/subtitle/<videoID>.srt
    finevideo   ROOT/videos/<name>.mp4, ROOT/metadata/<name>.json; `extract_finevideo` writes them from its parquet
    moviechat   ROOT/<name>.mp4 beside its json, as in the repositories of both splits: {raw_videos, jsons} for
                training, {videos, annotations} for testing; below ROOT or below ROOT/train and ROOT/test
    nextqa      ROOT/{train,val,test}.csv, ROOT/map_vid_vidorID.json, ROOT/{NExTVideo,videos}/<mapped name>.mp4
    vggsound    ROOT/vggsound.csv, ROOT/{videos,video,clips}/<youtube id>_<start as 000000>.mp4, and other usual names
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import annotations as published
from .messages import DataError, MissingMediaError, parse_json
from .readers import READERS


logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")

# Terms of the videos, by the rows' column `source`, as their publishers state them.
LICENCES = {
    "world": "Apache-2.0 (made by saven_hf)",
    "videomme": "academic research only; not to be passed on",
    "finevideo": "Creative Commons, each video under its own licence with attribution; FineVideo's terms go along",
    "moviechat": "clips of films, series and YouTube, whose rights are their owners'; access on request",
    "nextqa": "videos of VidOR, from YFCC100M: each under its own Creative Commons licence at Flickr",
    "vggsound": "annotations CC BY 4.0; videos of YouTube, whose rights are their owners'",
}
# Their videos may not be embedded in a dataset that others are given (our reading of the terms).
BY_REFERENCE = ("videomme", "moviechat", "vggsound")


@dataclass(frozen=True)
class SourceVideo:
    """A video of a corpus.

    Attributes:
        id: of the corpus and the video, unique among all corpora.
        path: of the file.
        source: the corpus, for the rows' column `source`.
        split: "train", "validation" or "test": the corpus' own.
        origin: where it came from: an address, or an id at its source.
        start, end: the part of the origin that the file is, seconds; None: all of it.
        subtitles: a file of timed text; None if there is none.
    """

    id: str
    path: Path
    source: str
    split: str
    origin: str | None = None
    start: float | None = None
    end: float | None = None
    subtitles: Path | None = None


class Corpus:
    """Videos of a corpus; iterating reads its files from their beginning.

    Args:
        name: key of `CORPORA`.
        root: its folder.
        split: "train", "validation" or "test"; None: all that it has.
        missing: "error" raises `MissingMediaError` where a video is not found, "skip" leaves it out.

    Attributes:
        counts: of the last iteration: "videos" and "missing"; what is missing is also logged.

    Raises:
        DataError: bad arguments; while iterating, also for files that are not as published, and for an empty split.
    """

    def __init__(self, name: str, root: str | os.PathLike, split: str | None = None, missing: str = "error"):
        if name not in CORPORA:
            near = difflib.get_close_matches(name.lower(), CORPORA, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CORPORA)}."
            raise DataError(f"there is no corpus {name!r}: {hint}")
        if split not in (None, *SPLITS):
            raise DataError(f"there is no split {split!r}: take one of {', '.join(SPLITS)}.")
        if missing not in ("error", "skip"):
            raise DataError(f"missing is {missing!r}: it must be 'error' or 'skip'.")
        self.name, self.root, self.split, self.missing = name, Path(root), split, missing
        self.counts: Counter[str] = Counter()
        if not self.root.is_dir():
            raise DataError("there is no such folder.", self.root)

    def __iter__(self) -> Iterator[SourceVideo]:
        self.counts = Counter()
        seen: set[str] = set()
        for video in CORPORA[self.name](self.root):
            if self.split not in (None, video.split) or video.id in seen:
                continue  # annotation files have a row a question
            seen.add(video.id)
            if not video.path.is_file():
                if self.missing == "error":
                    hint = f"; it came from {video.origin}" if video.origin else ""
                    raise MissingMediaError(
                        f"the video {video.id} is not there: fetch it{hint}, or pass missing='skip'.", video.path
                    )
                self.counts["missing"] += 1
                continue
            self.counts["videos"] += 1
            yield video
        if not seen:
            what = "videos" if self.split is None else f"videos of the split {self.split!r}"
            raise DataError(f"there are no {what} of {self.name} in it.", self.root)
        if self.counts["missing"]:
            logger.warning(f"{self.root}: {self.counts['videos']} videos; {self.counts['missing']} are missing.")


def open_corpus(name: str, root: str | os.PathLike, split: str | None = None, missing: str = "error") -> Corpus:
    """Videos of a corpus on disk; see `Corpus`."""
    return Corpus(name, root, split, missing)


# ------------------------------------------------------------------------------------------------------------- corpora


def videomme(root: Path) -> Iterator[SourceVideo]:
    """Video-MME: 900 videos, all of them for testing."""
    for row in _parquet_rows(root, "videomme/*.parquet", ("videoID", "url")):
        name = _inside(row["videoID"], root)
        subtitles = root / "subtitle" / f"{name}.srt"
        yield SourceVideo(
            f"videomme-{name}",
            _found(root, ("data", "video", "videos"), name),
            "videomme",
            "test",
            row["url"],
            subtitles=subtitles if subtitles.is_file() else None,
        )


def finevideo(root: Path) -> Iterator[SourceVideo]:
    """FineVideo, extracted: some 43,000 videos, all of them for training."""
    files = sorted((root / "metadata").glob("*.json"))
    if not files and any(root.glob("**/*.parquet")):
        raise DataError(
            "videos lie in parquet files: write them out with saven_hf.data.corpora.extract_finevideo first.", root
        )
    for file in files:
        told = _json(file)
        origin = told.get("youtube_title") if isinstance(told, Mapping) else None
        yield SourceVideo(f"finevideo-{file.stem}", _found(root, ("videos",), file.stem), "finevideo", "train", origin)


def moviechat(root: Path) -> Iterator[SourceVideo]:
    """MovieChat-1K: 800 videos for training, 200 for testing (some of them were never published)."""
    for split, kinds in (("train", ("raw_videos", "jsons")), ("test", ("videos", "annotations"))):
        for below in (root, root / split):
            for file in sorted((below / kinds[1]).glob("*.json")):
                told = _json(file)
                info = told.get("info") if isinstance(told, Mapping) else None
                if not isinstance(info, Mapping) or not isinstance(info.get("video_path"), str):
                    raise DataError("'info' has no 'video_path': this is no annotation of MovieChat-1K.", file)
                name = _inside(info["video_path"], file)
                path, origin = below / kinds[0] / name, info.get("url") or None
                yield SourceVideo(f"moviechat-{split}-{Path(name).stem}", path, "moviechat", split, origin)


def nextqa(root: Path) -> Iterator[SourceVideo]:
    """NExT-QA: 3,870 videos for training, 570 for validation, 1,000 for testing."""
    names = _json(root / "map_vid_vidorID.json")
    for file, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        path = root / f"{file}.csv"
        if not path.is_file():
            continue
        for line, row in published.read_csv(path, ("video", "question")):
            if isinstance(row, ValueError):
                raise DataError(f"{row}.", path, line)
            if row["video"] not in names:
                raise DataError(f"the video {row['video']!r} is not in map_vid_vidorID.json.", path, line)
            name = _inside(names[row["video"]], path)
            yield SourceVideo(
                f"nextqa-{row['video']}", _found(root, ("NExTVideo", "videos"), name), "nextqa", split, f"VidOR {name}"
            )


def vggsound(root: Path) -> Iterator[SourceVideo]:
    """VGGSound: some 184,000 clips of 10 s for training, 15,000 for testing."""
    path = root / "vggsound.csv"
    for split in ("train", "test"):
        for line, row in published.vggsound(path, split):
            if isinstance(row, ValueError):
                raise DataError(f"{row}.", path, line)
            for segment in row.segments:
                times = {"start_s": int(segment.start), "end_s": int(segment.end)}
                times |= {"start_ms": round(segment.start * 1000), "end_ms": round(segment.end * 1000)}
                names = [cut.removesuffix(".*").format(id=row.id, **times) for cut in READERS["vggsound"].cut]
                yield SourceVideo(
                    f"vggsound-{names[0]}",
                    _found(root, ("videos", "video", "clips"), *(_inside(name, path) for name in names)),
                    "vggsound",
                    split,
                    f"https://www.youtube.com/watch?v={row.id}",
                    segment.start,
                    segment.end,
                )


CORPORA: dict[str, Callable[[Path], Iterable[SourceVideo]]] = {
    "videomme": videomme,
    "finevideo": finevideo,
    "moviechat": moviechat,
    "nextqa": nextqa,
    "vggsound": vggsound,
}


def extract_finevideo(parquet_files: str | os.PathLike, out: str | os.PathLike) -> int:
    """Write FineVideo's videos and their metadata as files, from its parquet shards (columns `mp4` and `json`).

    What is there already is kept, so an interrupted run goes on.

    Args:
        parquet_files: folder with the shards, anywhere below it.
        out: where `videos` and `metadata` are written.

    Returns:
        How many videos there are.

    Raises:
        DataError: no shards, or they are of another form.
    """
    from ..files import written_whole

    out = Path(out)
    for folder in ("videos", "metadata"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    count = 0
    for row in _parquet_rows(Path(parquet_files), "**/*.parquet", ("mp4", "json")):
        told = row["json"]
        name = Path(told.get("original_video_filename") or f"sample_{count}").stem
        for path, content in (
            (out / "videos" / f"{name}.mp4", row["mp4"]),
            (out / "metadata" / f"{name}.json", json.dumps(told, default=str).encode()),  # last: it stands for both
        ):
            if not path.is_file():
                with written_whole(path) as partial:
                    Path(partial).write_bytes(content)
        count += 1
    return count


# --------------------------------------------------------------------------------------------------------------- files


def _found(root: Path, folders: Iterable[str], *names: str) -> Path:
    """The file of one of the names in one of the folders; if there is none, the first that was looked for."""
    wanted = [root / folder / f"{name}{suffix}" for folder in folders for name in names for suffix in _SUFFIXES]
    return next((path for path in wanted if path.is_file()), wanted[0])


def _inside(name: Any, file: Path) -> str:
    if not isinstance(name, str) or not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise DataError(f"{name!r} is no name of a video below the corpus' folder.", file)
    return name


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror}): download it with the corpus.", path) from None
    except ValueError as error:
        raise DataError(str(error), path) from None


def _parquet_rows(root: Path, pattern: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowInvalid, parquet

    files = sorted(root.glob(pattern))
    if not files:
        raise DataError(f"there is no {pattern} in it: download the corpus' annotations.", root)
    for path in files:
        try:
            with parquet.ParquetFile(path) as file:
                lacking = [column for column in columns if column not in file.schema_arrow.names]
                if lacking:
                    raise DataError(f"there is no column {lacking[0]!r}: it is another dataset's.", path)
                for batch in file.iter_batches(batch_size=16, columns=list(columns)):
                    yield from batch.to_pylist()
        except ArrowInvalid as error:
            raise DataError(f"this is no parquet file ({error}): download it again.", path) from None

"""SAVEn-Vid and AVBench, put together from what `saven build` and `saven world` wrote.

    build_savenvid(["built/finevideo", "built/own"], "savenvid", licences={"own": "CC BY 4.0"})
    build_avbench(["built/videomme", "built/own"], "avbench", reviews="reviews.jsonl", against="savenvid")

SAVEn-Vid takes videos of splits to train on, AVBench those of test splits: the original split of each source, as in
the paper (section 3.1). No verdict is hidden: what a check that was run has failed is left out here, and counted in
the card.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .corpora import BY_REFERENCE, LICENCES
from .hub_folder import (
    Card,
    DatasetWriteError,
    dataset_folder,
    found_file,
    media_reference,
    read_rows,
    shards,
    splits,
    write_card,
    write_split,
)
from .instructions import InstructionMaker
from .messages import DataError, parse_json
from .schema import CHECKS, LEAST_EVENTS, NOT_CHECKED, Verdict, validate_row, validate_segments


TRAIN, TEST = "train", "test"
MEDIA = ("embed", "copy", "reference")
# The paper's own: section 3.2 for both, appendix B for AVBench, whose other checks are our decision.
TRAIN_CHECKS = ("format", "consistency", "redundancy", "duplicate_video")
TEST_CHECKS = CHECKS

_SAVENVID_PAPER = {
    "instructions": "58,000",
    "instructions: captions": "21,000",
    "instructions: questions": "37,000",
    "mean length of a video": "182 s (with AVBench)",
}
_AVBENCH_PAPER = {"questions": "2,500", "mean length of a video": "182 s (with SAVEn-Vid)"}
_WORLD_SPLITS = {"train": TRAIN}  # all others of the world are held out


@dataclass
class _Video:
    """All rows of one video, without its file."""

    folder: Path
    split: str
    row: dict[str, Any]
    captions: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    world: list[dict[str, Any]] = field(default_factory=list)


def build_savenvid(
    folders: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    media: str = "embed",
    media_root: str | os.PathLike | None = None,
    require: Sequence[str] = TRAIN_CHECKS,
    licences: Mapping[str, str] | None = None,
    seed: int = 0,
    **writing: Any,
) -> dict[str, Any]:
    """Write SAVEn-Vid: configurations "qa", "captions", "videos", "sft", and "world" if there are videos of it.

    Args:
        folders: of `saven build` or `saven world`; their split "train" is taken.
        out: new, empty, or written by this before.
        media: "embed" stores the videos in the rows, "copy" stores them once below `out`/videos and names them,
            "reference" only names them.
        media_root: where videos that are given by reference lie; by default the folder that names them.
        require: checks; a question that failed one of them is left out.
        licences: of sources (the rows' column `source`), beside those that are known (`corpora.LICENCES`). Videos that
            may not be passed on (`corpora.BY_REFERENCE`) are only stored if their licence is given here.
        seed: draws the instructions.
        writing: `shard_bytes`, `rows_per_group` of `write_split`.

    Returns:
        {"out", "left_out", "statistics"}: `left_out` counts questions by the check they failed.

    Raises:
        DataError: what is read or asked for cannot be used; nothing is written.
        RowError: a row is not valid.
    """
    about = (
        "Questions, captions and instructions on videos with their sound and their time, in the form of SAVEn-Vid "
        "(arXiv 2411.16213). The paper's own data were never published: these rows were made anew by saven_hf."
    )
    card = Card("SAVEn-Vid", about, licences or {}, paper=_SAVENVID_PAPER)
    return _build(folders, out, TRAIN, card, media, media_root, require, InstructionMaker(seed), **writing)


def build_avbench(
    folders: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    media: str = "embed",
    media_root: str | os.PathLike | None = None,
    require: Sequence[str] = TEST_CHECKS,
    reviews: str | os.PathLike | None = None,
    against: Sequence[str | os.PathLike] = (),
    licences: Mapping[str, str] | None = None,
    **writing: Any,
) -> dict[str, Any]:
    """Write AVBench: configurations "qa", "captions" and "videos" of videos with at least three events.

    Args:
        folders, out, media, media_root, licences, writing: as for `build_savenvid`; the split "test" is taken, of the
            world all that are held out.
        require: checks; a question that failed one of them is left out. A check that was not run leaves nothing out.
        reviews: what the review Space exports; then only questions that a person kept or mended are taken.
        against: folders of datasets to train on; a video that is in one of them, by its id or the hash of its file,
            is left out.

    Returns, raises: as `build_savenvid`.
    """
    about = (
        "Questions on videos that need their sound, their picture and their time, in the form of AVBench "
        "(SAVEn-Vid, arXiv 2411.16213, appendix B). The paper's own were never published: these were made anew."
    )
    about += " A person has looked at each of them." if reviews else " No person has looked at them yet."
    card = Card("AVBench", about, licences or {}, paper=_AVBENCH_PAPER)
    accepted = None if reviews is None else read_reviews(reviews)
    return _build(folders, out, TEST, card, media, media_root, require, None, accepted, against, **writing)


def _build(
    folders: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    split: str,
    card: Card,
    media: str,
    media_root: str | os.PathLike | None,
    require: Sequence[str],
    instructions: InstructionMaker | None,
    accepted: Mapping[str, Mapping[str, Any]] | None = None,
    against: Sequence[str | os.PathLike] = (),
    **writing: Any,
) -> dict[str, Any]:
    if media not in MEDIA:
        raise DataError(f"media is {media!r}: it must be one of {', '.join(MEDIA)}.")
    unknown = [check for check in require if check not in CHECKS]
    if unknown:
        raise DataError(f"there is no check {unknown[0]!r}: there are {', '.join(CHECKS)}.")
    left_out: Counter[str] = Counter()
    videos = [video for folder in folders for video in _videos(Path(folder), split)]
    names = Counter(video.row["video_id"] for video in videos)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(f"the video {twice[0]!r} is in more than one folder: give each once.")
    videos = _kept(videos, require, accepted, against, split, left_out)
    if not any(video.questions for video in videos):
        tried = ", ".join(map(os.fspath, folders))
        raise DataError(f"no question of a split {split!r} is left in {tried}; left out were {dict(left_out)}.")

    reserved = {video.row["source"] for video in videos} & set(BY_REFERENCE) - set(card.sources)
    if media != "reference" and reserved:
        raise DataError(
            f"videos of {min(reserved)!r} may not be passed on ({LICENCES[min(reserved)]}): give media='reference', "
            "or their licence, if you have another."
        )
    card = replace(card, sources={**LICENCES, **card.sources})
    with dataset_folder(out) as folder:
        embed = media == "embed"
        rows: dict[str, Iterator[dict[str, Any]]] = {
            "qa": _with_files(videos, lambda video: video.questions, folder, media, media_root),
            "captions": (row for video in videos for row in video.captions),
            "videos": _with_files(videos, lambda video: [video.row], folder, media, media_root),
        }
        if instructions is not None:
            rows["sft"] = _with_files(
                videos,
                lambda video: instructions.rows(video.row | {"video": None}, video.captions, video.questions),
                folder,
                media,
                media_root,
            )
            if any(video.world for video in videos):
                rows["world"] = _with_files(videos, lambda video: video.world, folder, media, media_root)
        for config, of_config in rows.items():
            write_split(folder, config, split, of_config, embed=embed, **writing)
        if left_out:
            counts = ", ".join(f"{count} for {check}" for check, count in sorted(left_out.items()))
            card = replace(card, about=f"{card.about}\n\nLeft out were: {counts}.")
        found = write_card(folder, card)
    return {"out": os.fspath(out), "left_out": dict(left_out), "statistics": found}


# ------------------------------------------------------------------------------------------------------------- reading


def _videos(folder: Path, split: str) -> list[_Video]:
    """Videos of a folder that belong to a split, with all their rows."""
    if not shards(folder, "videos"):
        raise DataError("there is no data/videos below it: give a folder of `saven build` or `saven world`.", folder)
    world = (folder / "world.json").is_file()
    videos: dict[str, _Video] = {}
    for own in splits(folder, "videos"):
        if (_WORLD_SPLITS.get(own, TEST) if world else own) != split:
            continue
        for row in read_rows(folder, "videos", own, without=("video",)):
            row = _from_world_video(row, folder) if world else row
            videos[row["video_id"]] = _Video(folder, own, {**row, "video": None})
        for row in read_rows(folder, "captions", own):
            _of(videos, row, folder).captions.append({"transcript": None, **row})
        for row in read_rows(folder, "qa", own, without=("video",)):
            video = _of(videos, row, folder)
            if world:
                video.world.append({**row, "video": None, "media": video.row["media"]})
                row = _from_world_question(row, video)
            if row is not None:
                video.questions.append({**row, "video": None})
    for video in videos.values():
        validate_segments(video.captions, video.row["duration"])
    return list(videos.values())


def _of(videos: Mapping[str, _Video], row: Mapping[str, Any], folder: Path) -> _Video:
    if row["video_id"] not in videos:
        raise DataError(f"a row is about the video {row['video_id']!r}, of which `videos` has no row.", folder)
    return videos[row["video_id"]]


def _from_world_video(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "videos" / f"{row['video_id']}.mp4"
    made = row["provenance"]
    origin = f"saven world --split {made['split']} --seed {made['seed']} --videos 1"
    return {**row, "media": media_reference(path, folder, origin=origin), "provenance": _plain(made)}


def _from_world_question(row: Mapping[str, Any], video: _Video) -> dict[str, Any] | None:
    """A question of the world as one of SAVEn-Vid; None where it is open only. Exact chance takes the place of
    guessers, and the scene's segments that of events: each has a caption of its own."""
    if not row["options"]:
        return None
    known, chance = row["checks"], row["checks"]["chance"]
    checks = dict(NOT_CHECKED)
    for check, guesser, enough in (("visual_only", "picture", "picture"), ("audio_only", "sound", "sound")):
        checks[check] = Verdict(passed=known["needs"] != enough, score=chance[guesser], detail="exact chance")
    checks["leakage"] = Verdict(passed=chance["text"] < 1, score=chance["text"], detail="exact chance")
    events = len(video.captions)
    checks["events"] = Verdict(passed=events >= LEAST_EVENTS, score=float(events), detail="segments")
    kept = {name: value for name, value in row.items() if name != "answer_text"}
    return {**kept, "media": video.row["media"], "checks": checks, "provenance": _plain(row["provenance"])}


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {name: provenance[name] for name in ("models", "prompt_hashes", "code_version")}


def read_reviews(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """The last word on each question, of a JSONL file that the review Space exports.

    Returns:
        By question id {"verdict": "keep" | "fix" | "drop", "changes": {column: value}, ...}.

    Raises:
        DataError: a line that is none.
    """
    found: dict[str, dict[str, Any]] = {}
    if not os.path.isfile(path):
        raise DataError("there is no such file of reviews.", path)
    with open(path, encoding="utf-8") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                review = parse_json(text)
            except ValueError as error:
                raise DataError(str(error), path, line) from None
            if not isinstance(review, dict) or not isinstance(review.get("id"), str):
                raise DataError("a review is an object with the question's 'id'.", path, line)
            if review.get("verdict") not in ("keep", "fix", "drop"):
                raise DataError(f"the verdict is {review.get('verdict')!r}: it must be keep, fix or drop.", path, line)
            found[review["id"]] = review
    return found


# -------------------------------------------------------------------------------------------------------------- choice


def _kept(
    videos: Iterable[_Video],
    require: Sequence[str],
    accepted: Mapping[str, Mapping[str, Any]] | None,
    against: Sequence[str | os.PathLike],
    split: str,
    left_out: Counter[str],
) -> list[_Video]:
    """Videos with the questions that are taken; what is not is counted by its reason."""
    trained = set()
    for folder in against:
        if not shards(folder, "videos"):
            raise DataError("there is no data/videos below it to compare with.", folder)
        for row in read_rows(folder, "videos", without=("video",)):
            trained |= {row["video_id"], *([row["media"]["sha256"]] if row["media"] else ())}
    kept = []
    for video in videos:
        names = {video.row["video_id"], *([video.row["media"]["sha256"]] if video.row["media"] else ())}
        if names & trained:
            left_out["a video that is trained on"] += len(video.questions)
            continue
        video.questions = [
            reviewed
            for row in video.questions
            if (reviewed := _reviewed(row, require, accepted, left_out)) is not None
        ]
        if video.questions or split == TRAIN:  # captions are worth learning from by themselves
            kept.append(video)
    return _interleaved(kept)


def _reviewed(
    row: dict[str, Any],
    require: Sequence[str],
    accepted: Mapping[str, Mapping[str, Any]] | None,
    left_out: Counter[str],
) -> dict[str, Any] | None:
    """The row as it is taken, or None. A person's word goes before the checks'."""
    if accepted is not None:
        review = accepted.get(row["id"])
        if review is None or review["verdict"] == "drop":
            left_out["not reviewed" if review is None else "dropped in review"] += 1
            return None
        row = {**row, **(review.get("changes") or {})}
        validate_row(row | {"video": {"bytes": None, "path": "found later"}}, "qa")
        return row
    failed = [check for check in require if row["checks"][check] and row["checks"][check]["passed"] is False]
    if failed:
        left_out[failed[0]] += 1
        return None
    return row


def _interleaved(videos: Sequence[_Video]) -> list[_Video]:
    """One video of each folder by turns, so that no part of a stream is of one source alone."""
    by_folder: dict[Path, list[_Video]] = {}
    for video in videos:
        by_folder.setdefault(video.folder, []).append(video)
    return [video for turn in zip_longest(*by_folder.values()) for video in turn if video is not None]


# ------------------------------------------------------------------------------------------------------------- writing


def _with_files(
    videos: Sequence[_Video],
    rows_of,
    out: Path,
    media: str,
    media_root: str | os.PathLike | None,
) -> Iterator[dict[str, Any]]:
    """Rows of the videos in their order, with file and reference as `media` says."""
    files = {folder: _StoredFiles(folder) for folder in {video.folder for video in videos}}
    for video in videos:
        rows = rows_of(video)
        if not rows:
            continue
        reference = video.row["media"]
        file = None
        if media != "reference" or reference is None:
            file = _file(video, files[video.folder], media_root)
        if media == "copy":
            file, reference = _copied(video, file, out)
        for row in rows:
            row = {**row, "media": reference}
            yield row | ({"videos": [file] if file else []} if "messages" in row else {"video": file})


def _file(video: _Video, stored: _StoredFiles, media_root: str | os.PathLike | None) -> dict[str, Any]:
    """The video's file: in its own folder's rows, or where its reference says."""
    reference = video.row["media"]
    if reference is not None:
        root = video.folder if media_root is None else media_root
        if Path(root, reference["file"]).is_file() or not stored.has_bytes:
            return {"bytes": None, "path": str(found_file(reference, root))}
    return stored.get(video.row["video_id"])


class _StoredFiles:
    """Videos that a folder holds in its rows; asked for in about the order of the rows, a row group is read once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._rows = read_rows(folder, "videos")
        self._at = next(self._rows)
        self.has_bytes = self._at["video"] is not None

    def get(self, video_id: str) -> dict[str, Any]:
        while self._at["video_id"] != video_id:
            self._at = next(self._rows, None)
            if self._at is None:
                raise DatasetWriteError(f"no row holds the video {video_id!r}.", self._folder)
        return self._at["video"]


def _copied(video: _Video, file: Mapping[str, Any], out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The video below `out`/videos, and what refers to it."""
    name = Path("videos", f"{video.row['video_id']}{Path(file['path'] or '.mp4').suffix}")
    path = out / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["bytes"] is not None:
            path.write_bytes(file["bytes"])
        else:
            shutil.copyfile(file["path"], path)
    before = video.row["media"] or {}
    kept = {part: before.get(part) for part in ("origin", "start", "end")}
    return {"bytes": None, "path": str(path)}, media_reference(path, out, **kept)

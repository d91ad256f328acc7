"""The world as a dataset on disk: mp4 files, parquet shards and a card that `load_dataset` opens."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tqdm import tqdm

from ..cards import render
from ..data.hub_folder import Card, card_metadata, write_parquet
from ..data.schema import ROWS, WorldProvenance, columns, import_datasets
from ..files import written_whole
from ..version import __version__
from .captions import caption
from .conversations import Turn, as_messages, describe_scene, make_conversation
from .questions import Question, make_questions
from .scenes import Scene
from .splits import SPLITS, sample_scene, split_named
from .video import write_video


VIDEOS_PER_SHARD = 64
CONFIGS = ("qa", "captions", "videos", "sft")
_MANIFEST = "world.json"

# What `sft` rows are, as weights: captions to questions as 21 : 37, the paper's mix; the rest is our decision.
_SFT_KINDS = {
    **{"span_caption": 7.0, "visual_span_caption": 3.5, "audio_span_caption": 3.5},
    **{"captions": 3.5, "visual_captions": 1.75, "audio_captions": 1.75},
    **{"choice": 18.5, "open": 18.5},
}
_CARD = Card("The SAVEn world", license="apache-2.0", tags=("video", "audio", "synthetic", "audio-visual"))
_SFT_DRAWS = 6  # of a video; what comes twice is one row


def configs_of(split: str) -> tuple[str, ...]:
    """Configs that a split has: nothing to train on is made of held-out scenes."""
    return tuple(config for config in CONFIGS if config != "sft" or not split_named(split).held_out)


class WorldBuildError(ValueError):
    """A folder that holds another world than the one asked for, or a request that cannot be built."""


def build_world(
    out_dir: str | os.PathLike,
    videos: int,
    seed: int = 0,
    split: str = "train",
    size: tuple[int, int] = (64, 64),
    segments: int | tuple[int, int] | None = None,
    progress: bool = True,
) -> dict:
    """Write a split of the world; `load_dataset(out_dir, "qa")`, or another config, opens it.

        videos/<video_id>.mp4                H.264 and AAC
        data/qa/<split>-00000-of-00002.parquet
        data/captions/<split>-...            one row for each segment
        data/videos/<split>-...              one for each video: captions of all of its picture, sound, and both
        data/sft/<split>-...                 one for each instruction and answer; none for held-out splits
        README.md, world.json                the card with the configs, and what was asked for

    Run it again after an interruption: what is complete is kept, and the result is the same, but for a few pixels that
    H.264 encoders do not promise. Nothing appears under its name before it is complete. Call it with other splits to
    add them to the same folder.

    Args:
        out_dir: created where it does not exist.
        videos: how many; their scene seeds are seed, seed + 1, ...
        size: (height, width) of the pictures, even.
        segments: as in `sample_scene`.
        progress: show a bar.

    Returns:
        {"out", "split", "videos", "questions", "captions", "sft", "seconds"}: the folder, and what the split holds.

    Raises:
        WorldBuildError: `videos` is below 1, or the folder has this split with other arguments.
        MissingDependencyError: the `datasets` library is not installed.
    """
    features = _features()
    split_named(split)
    if videos < 1:
        raise WorldBuildError(f"A world has at least one video; {videos} were asked for.")
    out = Path(out_dir)
    wanted = {
        "videos": videos,
        "seed": seed,
        "size": list(size),
        "segments": list(segments) if isinstance(segments, tuple) else segments,
        "code_version": __version__,
    }
    manifest = _read_manifest(out)
    built = manifest.get(split)
    if built is not None:
        differing = [f"{name} {built.get(name)!r} instead of {wanted[name]!r}" for name in wanted
                     if built.get(name) != wanted[name]]  # fmt: skip
        if differing:
            raise WorldBuildError(
                f"{out} already has the split {split!r} with {', '.join(differing)}. Ask for the same again to "
                "complete it, or give another folder."
            )
    configs = configs_of(split)
    for folder in ("videos", *(f"data/{config}" for config in configs)):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for stale in out.rglob("*.partial"):  # of a run that was killed
        stale.unlink()
    _write_manifest(out, manifest | {split: built or wanted})

    shards = -(-videos // VIDEOS_PER_SHARD)
    counts = {"questions": 0, "captions": 0, "sft": 0, "seconds": 0.0}
    with tqdm(total=videos, unit="video", desc=f"world {split}", disable=not progress) as bar:
        for shard in range(shards):
            first = shard * VIDEOS_PER_SHARD
            numbers = range(seed + first, seed + min(first + VIDEOS_PER_SHARD, videos))
            scenes = [sample_scene(number, split, segments) for number in numbers]
            questions = [make_questions(scene) for scene in scenes]
            captions = [caption(scene) for scene in scenes]
            turns = [make_conversation(scene, _SFT_KINDS, _SFT_DRAWS) if "sft" in configs else [] for scene in scenes]
            counts["questions"] += sum(map(len, questions))
            counts["captions"] += sum(map(len, captions))
            counts["sft"] += sum(map(len, turns))
            counts["seconds"] += sum(scene.duration for scene in scenes) / 1e6
            names = {config: _shard_name(out, config, split, shard, shards) for config in configs}
            if all(name.is_file() for name in names.values()):
                bar.update(len(scenes))
                continue
            for scene in scenes:
                path = out / "videos" / f"{scene.video_id}.mp4"
                if not path.is_file():
                    write_video(scene, path, size)
                bar.update()
            # Bytes, so that a shard is whole by itself; parquet stores those of rows that share a video once.
            contents = [(out / "videos" / f"{scene.video_id}.mp4").read_bytes() for scene in scenes]
            files = [{"bytes": content, "path": None} for content in contents]
            rows = {
                "qa": _qa_rows(scenes, files, questions),
                "captions": _caption_rows(scenes, captions),
                "videos": _video_rows(scenes, files),
                "sft": _sft_rows(scenes, files, turns),
            }
            for config, name in names.items():
                write_parquet(name, rows[config], features[config])
    manifest[split] = wanted | counts
    _write_manifest(out, manifest)
    with written_whole(out / "README.md") as partial:
        Path(partial).write_text(_card(out, manifest), encoding="utf-8")
    return _summary(out, split, manifest)


def _read_manifest(out: Path) -> dict:
    path = out / _MANIFEST
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    if out.is_dir() and any(out.iterdir()):
        raise WorldBuildError(f"{out} holds other files and no {_MANIFEST}: give a folder that is new or empty.")
    return {}


def _write_manifest(out: Path, manifest: dict) -> None:
    with written_whole(out / _MANIFEST) as partial:
        Path(partial).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _shard_name(out: Path, config: str, split: str, shard: int, shards: int) -> Path:
    return out / "data" / config / f"{split}-{shard:05d}-of-{shards:05d}.parquet"


def _summary(out: Path, split: str, manifest: dict) -> dict:
    kept = ("videos", "questions", "captions", "sft", "seconds")
    return {"out": str(out), "split": split} | {name: manifest[split][name] for name in kept}


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def _features() -> dict:
    """Columns of each config. A question is SAVEn-Vid's "world"; there are no references to media, and no speech."""
    provenance = {"provenance": columns(WorldProvenance)}
    found = {
        "qa": columns(ROWS["world"]),
        "captions": columns(ROWS["captions"]),
        "videos": columns(ROWS["videos"]) | provenance,
        "sft": columns(ROWS["sft"]) | provenance,
    }
    features = import_datasets().Features
    return {
        config: features({name: one for name, one in of_config.items() if name not in ("media", "transcript")})
        for config, of_config in found.items()
    }


def _qa_rows(scenes: list[Scene], videos: list[dict], questions: list[list[Question]]) -> list[dict]:
    rows = []
    for scene, video, asked in zip(scenes, videos, questions, strict=True):
        for at, question in enumerate(asked):
            rows.append(
                {
                    "id": f"{scene.video_id}-{at}",
                    "video_id": scene.video_id,
                    "video": video,
                    "duration": scene.duration / 1e6,
                    "question": question.text,
                    "options": list(question.options),
                    "answer": question.answer,
                    "answer_text": question.answer_text,
                    "question_type": question.question_type,
                    "category": question.category,
                    "audio_type": _audio_type(scene, question),
                    "evidence": [[start / 1e6, end / 1e6] for start, end in question.evidence],
                    "checks": {
                        "family": question.family,
                        "needs": question.needs,
                        "chance": question.chance and question.chance._asdict(),
                    },
                    "source": "world",
                    "provenance": _provenance(scene),
                }
            )
    return rows


def _provenance(scene: Scene) -> dict:
    return {
        "models": [],
        "prompt_hashes": [],
        "code_version": __version__,
        "seed": scene.seed,
        "split": scene.split,
    }


def _audio_type(scene: Scene, question: Question) -> str:
    """The timbres heard in the evidence."""
    heard = {
        event.kind.timbre
        for start, end in question.evidence
        for event in scene.sounds
        if event.start < end and start < event.end
    }
    return ", ".join(sorted(heard))


def _caption_rows(scenes: list[Scene], captions) -> list[dict]:
    return [
        {
            "video_id": scene.video_id,
            "segment": one.segment,
            "start": one.start / 1e6,
            "end": one.end / 1e6,
            "visual_caption": one.visual,
            "audio_caption": one.audio,
            "av_caption": one.text,
        }
        for scene, of_scene in zip(scenes, captions, strict=True)
        for one in of_scene
    ]


def _video_rows(scenes: list[Scene], videos: list[dict]) -> list[dict]:
    return [
        {
            "video_id": scene.video_id,
            "video": video,
            "duration": scene.duration / 1e6,
            "visual_caption": describe_scene(scene, "visual_captions"),
            "audio_caption": describe_scene(scene, "audio_captions"),
            "av_caption": describe_scene(scene, "captions"),
            "source": "world",
            "provenance": _provenance(scene),
        }
        for scene, video in zip(scenes, videos, strict=True)
    ]


def _sft_rows(scenes: list[Scene], videos: list[dict], turns: list[list[Turn]]) -> list[dict]:
    """A row for each turn: in one conversation, an answer could be read off an earlier one."""
    return [
        {
            "id": f"{scene.video_id}-sft-{at}",
            "video_id": scene.video_id,
            "messages": as_messages([turn]),
            "videos": [video],
            # All of the video is used.
            "start": None,
            "end": None,
            "kind": turn.kind,
            "source": "world",
            "provenance": _provenance(scene),
        }
        for scene, video, of_scene in zip(scenes, videos, turns, strict=True)
        for at, turn in enumerate(of_scene)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Card


def _card(folder: Path, manifest: dict) -> str:
    """README.md: the configs of all complete splits, what they hold, how to open them."""
    complete = [split for split in SPLITS if "sft" in manifest.get(split, {})]
    found = {config: [split for split in complete if config in configs_of(split)] for config in CONFIGS}
    found = {config: holding for config, holding in found.items() if holding}
    told = {split: {**manifest[split], "description": SPLITS[split].description} for split in complete}
    return render("world", card_metadata(folder, _CARD, found), name=_CARD.name, found=found, splits=told)

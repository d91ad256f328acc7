"""The report page of a build: counts, lengths, words, letters, verdicts and sample rows with key frames."""

from __future__ import annotations

import base64
import html
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..data.prompts import LETTERS
from ..data.schema import CHECKS
from ..files import written_whole
from ..savenvideo.media import open_media
from ..savenvideo.media_errors import MediaError
from .check import SAME_TEXT
from .rules import STOP_WORDS, similarity
from .spans import span_words


_SAMPLES, _WIDTH = 6, 200
# Seconds; the buckets of the paper's figure 5, and of its figure 6 above an hour.
_LENGTHS = (10, 30, 60, 180, 300, 600, 900, 2700, 3600, float("inf"))
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .5em 0 1.5em } td, th { padding: .2em .8em; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } .bar { background: #4a7dbd; height: .8em; display: inline-block }
.number { text-align: right } figure { margin: 0 .5em .5em 0; display: inline-block; width: 210px; font-size: 12px;
vertical-align: top } img { max-width: 200px } .right { font-weight: bold } .no { color: #b02020 }
"""


def write_report(
    path: Path,
    rows: Sequence[dict],
    quarantined: Sequence[dict],
    letters: Mapping[str, int],
    duplicates: Sequence[tuple],
    videos: Mapping[str, str],
    provenance: Mapping,
) -> None:
    """Write the page, one file with its pictures in it; the same rows give the same bytes."""
    questions = [one for row in rows for one in row["questions"]]
    segments = [one for row in rows for one in row["segments"]]
    seconds = sum(row["duration"] for row in rows)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>SAVEn-Vid build</title>",
        f"<style>{_STYLE}</style><h1>What was built</h1>",
        _table(
            [
                ("videos", len(rows)),
                ("put aside", len(quarantined)),
                ("hours", f"{seconds / 3600:.2f}"),
                ("mean length of a video", f"{seconds / len(rows):.1f} s"),
                ("segments", len(segments)),
                ("segments told nearly as the one before", sum(map(_repeated_captions, rows))),
                ("videos without sound", sum(not row["has_audio"] for row in rows)),
                ("questions", len(questions)),
                ("videos without a question", sum(not row["questions"] for row in rows)),
                ("made by", ", ".join(provenance["models"])),
                ("prompts", ", ".join(provenance["prompt_hashes"]) or "none"),
            ]
        ),
        "<h2>Length of videos</h2>",
        _bars(_buckets(row["duration"] for row in rows)),
        "<h2>Length of segments</h2>",
        _bars(_buckets(one["end"] - one["start"] for one in segments)),
        "<h2>Questions</h2>",
        _bars(sorted(Counter(one["question_type"] for one in questions).items())),
        _bars(sorted(Counter(one["category"] for one in questions).items())),
        "<h3>Right letters</h3>",
        _bars(sorted(letters.items())),
        "<h2>Verdicts</h2><p>Nothing is dropped. A filter that asks for a verdict leaves out what failed it.</p>",
        _verdicts(questions),
        "<h2>Words of captions</h2>",
        _bars(_top_words(one["av_caption"] for one in segments)),
        "<h2>Words of questions</h2>",
        _bars(_top_words(one["question"] for one in questions)),
    ]
    if duplicates:
        parts += [
            "<h2>The same videos elsewhere</h2>",
            _table((video, f"as {other}") for video, other, _ in duplicates),
        ]
    if quarantined:
        found = ((one["file"], f"{one['stage']}: {one['reason']}") for one in quarantined)
        parts += ["<h2>Put aside</h2>", _table(found)]
    without = Counter(row["no_questions"] for row in rows if row["no_questions"])
    if without:
        parts += ["<h2>Why videos have no questions</h2>", _bars(sorted(without.items()))]
    parts.append("<h2>Samples</h2>")
    step = max(1, len(rows) // _SAMPLES)
    parts += [_sample(row, videos[row["video_id"]]) for row in rows[::step][:_SAMPLES]]
    with written_whole(path) as partial:
        Path(partial).write_text("\n".join(parts) + "\n", encoding="utf-8")


def _repeated_captions(row: dict) -> int:
    texts = [one["av_text"] for one in row["segments"]]
    return sum(similarity(one, before) > SAME_TEXT for before, one in zip(texts, texts[1:], strict=False))


def _table(rows: Iterable[tuple]) -> str:
    cells = "".join(f"<tr><td>{html.escape(str(name))}<td>{html.escape(str(value))}" for name, value in rows)
    return f"<table>{cells}</table>"


def _bars(counts: Iterable[tuple]) -> str:
    counts = list(counts)
    most = max((count for _, count in counts), default=0) or 1
    cells = "".join(
        f"<tr><td>{html.escape(str(name))}<td class=number>{count}"
        f"<td><span class=bar style='width:{300 * count / most:.0f}px'></span>"
        for name, count in counts
    )
    return f"<table>{cells}</table>"


def _buckets(lengths: Iterable[float]) -> list[tuple[str, int]]:
    counts = Counter(next(upper for upper in _LENGTHS if length < upper) for length in lengths)
    names, low = [], 0
    for upper in _LENGTHS:
        name = f"{low} to {upper} s" if upper != float("inf") else f"above {low} s"
        if counts[upper]:
            names.append((name, counts[upper]))
        low = upper
    return names


def _top_words(texts: Iterable[str], most: int = 25) -> list[tuple[str, int]]:
    counts = Counter(
        word for text in texts for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in STOP_WORDS
    )
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _verdicts(questions: Sequence[dict]) -> str:
    lines = ["<table><tr><th>check<th>passed<th>failed<th>undecided<th>not run<th>a filter drops"]
    for name in CHECKS:
        found = Counter(
            "not run" if one["checks"][name] is None else str(one["checks"][name]["passed"]) for one in questions
        )
        share = f"{100 * found['False'] / len(questions):.1f} %" if questions else ""
        lines.append(
            f"<tr><td>{name}<td class=number>{found['True']}<td class=number>{found['False']}"
            f"<td class=number>{found['None']}<td class=number>{found['not run']}<td class=number>{share}"
        )
    return "".join(lines) + "</table>"


def _sample(row: dict, path: str) -> str:
    parts = [f"<h3>{html.escape(row['video_id'])}, {row['duration']:.1f} s</h3>"]
    try:
        with open_media(path) as media:
            for segment in row["segments"][:8]:
                middle = round((segment["start"] + segment["end"]) * 5e5)
                text = html.escape(f"{span_words(segment)}. Seen: {segment['visual_caption']}")
                heard = f" Heard: {html.escape(segment['audio_caption'])}" if segment["audio_caption"] else ""
                picture = f"<img alt='' src='{_picture(media, middle)}'>"
                parts.append(f"<figure>{picture}<figcaption>{text}{heard}</figcaption></figure>")
    except MediaError as error:  # moved since its stages ran
        parts.append(f"<p class=no>{html.escape(str(error))}</p>")
    for asked in row["questions"]:
        options = "".join(
            f"<li class='{'right' if letter == asked['answer'] else ''}'>{letter}. {html.escape(option)}"
            for letter, option in zip(LETTERS, asked["options"], strict=False)
        )
        failed = [name for name, one in asked["checks"].items() if one and one["passed"] is False]
        note = f"<span class=no>failed: {', '.join(failed)}</span>" if failed else ""
        parts.append(f"<p>{html.escape(asked['question'])} <i>{asked['question_type']}</i> {note}<ul>{options}</ul>")
    return "\n".join(parts)


def _picture(media, time: int) -> str:
    from PIL import Image

    height = max(2, round(_WIDTH * media.height / max(media.width, 1)))
    frame = media.frames_at([time], (height, _WIDTH), "area")[0][0].permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

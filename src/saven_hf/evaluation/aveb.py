"""AVEB and its successor SAVE: eleven tasks of AVEB and two that SAVE added, of one modality and of several.

No scoring code was ever published for either. The metrics are those that the papers name; how each is computed, and
everything the papers leave open, is our decision and said at the task.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..world.interventions import edit_sound
from .benchmarks import Item, Pair, Table
from .media_files import VIDEO_SUFFIXES
from .parsing import normalise
from .published import (
    BadRowError,
    BenchmarkFileError,
    PublishedBenchmark,
    annotation_files,
    answer_field,
    letter_of,
    options_field,
    read_rows,
    text_field,
)
from .text_metrics import count_word_errors, normalise_answer, vqa_accuracy


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        title: for people, with the data it is made of.
        files: patterns of its annotation file, below the folder.
        form: of its items, see `Item`.
        metric: how an answer is scored, see `AVEB.score`.
        question: what is asked where the file asks nothing.
    """

    title: str
    files: tuple[str, ...]
    form: str
    metric: str
    question: str = ""


TASKS = {
    # of one modality
    "asr": Task(
        "Speech recognition, LibriSpeech test-clean", ("librispeech*.json",), "transcript",
        "wer", "Can you transcribe the speech into a written format?",
    ),
    "audio-caption": Task(
        "Audio captioning, AudioCaps", ("audiocaps*.json", "audiocaps*.csv", "test.csv"), "caption",
        "captions", "Please describe the audio in one sentence.",
    ),
    "image-caption": Task(
        "Image captioning, Flickr30k", ("flickr30k*.json",), "caption", "captions",
        "Write a short description about this image.",
    ),
    "ocr": Task("Reading in images, TextVQA", ("textvqa*.json",), "words", "vqa"),
    "vqa": Task(
        "Questions about images, GQA", ("testdev_balanced*.json", "gqa*.json"), "words", "vqa"
    ),
    "video-qa": Task("Questions about videos, NExT-QA", ("nextqa*.json",), "choice", "choice"),
    # of several
    "avsr": Task("Audio-visual speech recognition, How2", ("how2*.json",), "transcript", "wer"),
    "avsd": Task("Audio-visual dialogue, AVSD", ("avsd*.json",), "caption", "captions"),
    "isqa": Task("Spoken questions about images", ("isqa*.json",), "words", "vqa",
                 "Answer the spoken question about the image."),
    "avssd": Task(
        "Source of a sound, VGGSound", ("testdata_formatted*.json", "avssd*.json"), "words",
        "source",
    ),
    "avm": Task(
        "Matching of sound and picture, VGGSound and SpokenCOCO",
        ("audiovisualmatching*.json", "avm*.json"), "words", "yes-no",
    ),
    # added by SAVE
    "ego4d-qa": Task("Questions about first-person videos, Ego4D", ("ego4d*.json",), "choice", "choice"),
    "presentation-qa": Task("Questions about talks with slides", ("presentation*.json",), "choice", "choice"),
}  # fmt: skip


class AVEB(PublishedBenchmark):
    """One task, from SAVE's files (`SAVEBench/*.json`), LibriSpeech's folder or AudioCaps' CSV.

    Rows of SAVE: `image` or `image_name` (a file, or [video or image, sound]), `question`, `answer` (a text or a
    list), `answer_candidates`. A video and the sound of its own name are one file; a video with the sound of another
    is asked about as that pair, put together in a file, so that every model is shown the same.

    Args:
        task: one of `TASKS`.
        data: the annotation file, or a folder with it and the media, wherever below it.
        spool: where videos with the sound of another one are written to.
        limit: see `PublishedBenchmark`.

    Raises:
        BenchmarkFileError: there is no such task or file, or nothing in it can be asked.
    """

    def __init__(
        self,
        task: str,
        data: str | os.PathLike,
        spool: str | os.PathLike | None = None,
        limit: int | None = None,
    ):
        if task not in TASKS:
            raise BenchmarkFileError(f"AVEB has no task {task!r}: one of {', '.join(TASKS)}.")
        self.task = TASKS[task]
        self._spool = Path(spool) if spool is not None else None
        data = Path(data)
        folder = data if data.is_dir() else data.parent
        super().__init__(f"aveb-{task}", self.task.title, [folder], limit)
        transcripts = sorted(data.rglob("*.trans.txt")) if task == "asr" and data.is_dir() else []
        if transcripts:
            self.take(transcripts, self._librispeech(transcripts))
            return
        files = annotation_files(data, *self.task.files)
        self.take(files, self._audiocaps(files) if files[0].suffix == ".csv" else self._save(files))

    def _save(self, files: Sequence[Path]) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        for number, (where, row) in enumerate(read_rows(*files)):
            try:
                names = _names(row)
                yield where, self._item(row, str(number), names), names
            except BadRowError as error:
                yield where, error, ()

    def _item(self, row: dict[str, Any], number: str, names: Sequence[str]) -> Item:
        video = " + ".join(str(Path(name).with_suffix("")) for name in names)
        if self.name == "aveb-avsd" and row.get("conversation"):
            question, answers = _dialogue(row["conversation"])
        else:
            question = str(row.get("question") or self.task.question)
            if not question:
                raise BadRowError("bad_row", "'question' is missing or empty")
            answers = answer_field(row, "answer", "answers", "captions")
        tags = {"source": "SpokenCOCO" if any("SpokenCOCO" in name for name in names) else "VGGSound"} if (
            self.name == "aveb-avm"
        ) else {}  # fmt: skip
        if self.task.form == "choice":
            options = options_field(row, "answer_candidates")
            letter = letter_of(answers[0], options)
            return Item(number, video, "choice", question, letter, options, tags)
        return Item(number, video, self.task.form, question, answers[0], tags=tags, references=answers)

    def _librispeech(self, files: Sequence[Path]) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        for path in files:
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, text = line.partition(" ")
                if not text.strip():
                    yield f"{path.name} {name}", BadRowError("missing_answer", "the utterance has no transcript"), ()
                    continue
                yield f"{path.name} {name}", Item(
                    name, name, "transcript", self.task.question, text, tags={"speaker": name.split("-")[0]}
                ), [name]  # fmt: skip

    def _audiocaps(self, files: Sequence[Path]) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        """Five captions of each clip of the test set, in five rows."""
        captions: dict[str, list[str]] = {}
        names: dict[str, str] = {}
        for where, row in read_rows(*files):
            try:
                clip, caption = text_field(row, "youtube_id"), text_field(row, "caption")
            except BadRowError as error:
                yield where, error, ()
                continue
            captions.setdefault(clip, []).append(caption)
            start = str(row.get("start_time") or "0")
            whole = int(float(start)) if re.fullmatch(r"\d+(\.\d+)?", start) else 0
            tried = [str(row.get("audiocap_id") or clip), f"{clip}_{whole}", f"{clip}_{whole:06d}", f"Y{clip}", clip]
            names.setdefault(clip, "|".join(tried))
        for clip, texts in captions.items():
            item = Item(clip, clip, "caption", self.task.question, texts[0], references=tuple(texts))
            yield clip, item, [names[clip]]

    def media(self, video_id: str) -> Path | Pair:
        found = super().media(video_id)
        if not isinstance(found, Pair) or found.image.suffix.lower() not in VIDEO_SUFFIXES:
            return found
        if self._spool is None:
            raise BenchmarkFileError(
                "A video and another one's sound are put together in a file: say where (`spool`)."
            )
        # Files of one name may lie in several folders.
        paths = zlib.crc32(f"{found.image}\n{found.sound}".encode())
        joined = self._spool / f"{found.image.stem}+{found.sound.stem}-{paths:08x}.mp4"
        if not joined.is_file():
            joined.parent.mkdir(parents=True, exist_ok=True)
            edit_sound(found.image, joined, swap_with=found.sound)
        return joined

    def prompt(self, item: Item, frame_times: Sequence[float] = ()) -> str:
        """The file's question; short answers are asked for where the metric compares words."""
        if self.task.metric in ("vqa", "yes-no"):
            short = "yes or no" if self.task.metric == "yes-no" else "a single word or phrase"
            return f"{item.question}\nAnswer with {short}."
        return super().prompt(item, frame_times)

    def score(self, item: Item, output: str) -> dict[str, Any]:
        """ "vqa": VQA's soft accuracy over all references ("score"; "correct" if it is above 0.5). "source": the words
        of the class, behind the last "is", "from" or "by" of the reference, occur in the answer. "yes-no": the first
        word. "wer": "errors" and "words"; "correct" if there are no errors. "captions": "correct" is None, because
        only a corpus has a score."""
        said = output.strip() or None
        if self.task.metric == "vqa":
            score = vqa_accuracy(output, item.references or (item.answer,))
            return {"parsed": normalise_answer(output) or None, "correct": score > 0.5, "score": score}
        if self.task.metric == "source":
            return {"parsed": said, "correct": _occurs(_source(item.answer), output)}
        if self.task.metric == "yes-no":
            word = re.match(r"\W*(yes|no)\b", output, re.IGNORECASE)
            parsed = word[1].lower() if word else None
            return {"parsed": parsed, "correct": parsed == normalise(item.answer)}
        if self.task.metric == "wer":
            errors, words = count_word_errors(item.answer, output)
            return {"parsed": said, "correct": errors == 0, "errors": errors, "words": words}
        if self.task.metric == "captions":
            return {"parsed": said, "correct": None}
        return super().score(item, output)

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        scored = [row["score"] for row in rows if "score" in row]
        if not scored:
            return []
        body = [[str(len(scored)), f"{100 * sum(scored) / len(scored):.2f}"]]
        return [Table("VQA's soft accuracy", ["questions", "%"], body)]

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        scored = [row["score"] for row in rows if "score" in row]
        return {"vqa_accuracy": sum(scored) / len(scored)} if scored else {}


def _names(row: dict[str, Any]) -> list[str]:
    names = row.get("image") or row.get("image_name") or row.get("video") or row.get("audio")
    names = [names] if isinstance(names, str) else list(names or ())
    if not names or len(names) > 2 or not all(isinstance(name, str) and name for name in names):
        raise BadRowError("bad_row", "'image' or 'image_name' is neither a file nor a pair of files")
    stems = {Path(name).stem for name in names}
    video = Path(names[0]).suffix.lower() in VIDEO_SUFFIXES
    return names[:1] if video and len(stems) == 1 else names


def _dialogue(turns: Sequence[Sequence[str]]) -> tuple[str, tuple[str, ...]]:
    """The last question of a dialogue, behind all turns before it."""
    if not turns or not all(isinstance(turn, Sequence) and len(turn) == 2 for turn in turns):
        raise BadRowError("bad_row", "'conversation' is no list of pairs of question and answer")
    *before, (question, answer) = turns
    if not str(answer).strip():
        raise BadRowError("missing_answer", "the last question of the conversation has no answer")
    history = "".join(f"Question: {asked}\nAnswer: {said}\n" for asked, said in before)
    return f"{history}Question: {question}\nAnswer:", (str(answer).strip(),)


def _source(sentence: str) -> str:
    """The class in "The source of this sound in this scene is people belly laughing." """
    return re.split(r"\b(?:is|as|from|by)\b", sentence)[-1].strip(" .")


def _occurs(phrase: str, text: str) -> bool:
    """Whether one of the names of a class, which are joined by commas, stands in a text, word by word."""
    words = f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
    names = [" ".join(re.findall(r"[a-z0-9]+", name.lower())) for name in phrase.split(",")]
    return any(name and f" {name} " in words for name in names)

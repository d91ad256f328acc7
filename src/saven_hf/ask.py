"""Ask questions about a video, an image or a sound.

`VideoSession` watches and listens once and answers any number of questions; `ask` is one question's worth of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field

import torch
from tqdm.auto import tqdm
from transformers.generation.streamers import TextStreamer

from .hub import load, model_type, resolve_model
from .savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor, VideoMemory
from .savenvideo.layout import FBANK_FRAMES_PER_PATCH, NO_TIME, PATCH_STEP_US
from .savenvideo.media import open_media
from .savenvideo.modeling_savenvideo import PLACEHOLDER_TOKENS
from .savenvideo.processing_savenvideo import subtitle_message
from .savenvideo.published_videollama2 import CLIPS_SECONDS
from .savenvideo.subtitles import embedded_subtitles, read_subtitles
from .savenvideo.times import parse_spans


class QuestionError(ValueError):
    """A question that cannot be asked."""


class QuestionFileError(ValueError):
    """A file of questions, or of their answers, that does not read as one."""


@dataclass
class Fed:
    """What the model was given, and what that cost. Times in seconds.

    Args:
        frames: number of frames; frame_times: when each is shown.
        audio_seconds: sound that was heard; video_seconds: length of the medium.
        tokens: tokens of the prompt that stand for the medium.
        seconds: time spent in `decode`, `encode`, `prefill` (to the first token) and `generate` (the rest).
    """

    frames: int = 0
    frame_times: list[float] = field(default_factory=list)
    audio_seconds: float = 0.0
    video_seconds: float = 0.0
    tokens: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "encode": 0.0, "prefill": 0.0, "generate": 0.0}
    )

    def __str__(self) -> str:
        """Three lines for people."""
        times = [f"{time:.2f}" for time in self.frame_times]
        if len(times) > 12:
            times = [*times[:6], "...", *times[-2:]]
        spent = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in self.seconds.items())
        return (
            f"fed: {self.frames} frames" + (f" at {', '.join(times)} s" if times else "") + "\n"
            f"     {self.audio_seconds:.1f} s of sound, of {self.video_seconds:.1f} s; {self.tokens} tokens\n"
            f"     {spent}"
        )


@dataclass
class Answer:
    """An answer and the spans of time, in seconds, that it speaks of (an instant has both ends alike)."""

    question: str
    answer: str
    spans: list[list[float]]


class VideoSession:
    """One medium, asked about as often as you like; a video is decoded and encoded once.

    Args:
        video: path, bytes or file object of a video, an image or a sound; or a `VideoMemory`.
        model, processor: a SAVEnVideo model and its processor (see `load`).
        subtitles: path of a subtitle file, or "embedded" for those inside the video; they enter the prompt with
            their times.
        sampling: `sampling`, `num_frames`, `fps`, `max_frames`, ..., as for the processor. With `sampling="query"`
            the frames depend on the question, so each question decodes anew; so it is with images and sounds, which
            are short, and with models of question_times="joint".

    Attributes:
        fed: what the model was given for the last question (`Fed`); its seconds add up over all.
    """

    def __init__(
        self,
        video,
        model: SAVEnVideoForConditionalGeneration,
        processor: SAVEnVideoProcessor,
        subtitles: str | os.PathLike | None = None,
        **sampling,
    ):
        self.model, self.processor = model, processor
        self.video, self.sampling = video, {name: value for name, value in sampling.items() if value is not None}
        self.fed = Fed()
        self.system = []
        self.memory: VideoMemory | None = None
        self.kind = "video"
        if getattr(video, "is_video_memory", False):
            self.memory = video
            self._note_memory()
        else:
            with open_media(video) as media:
                self.kind = media.kind
        if subtitles is not None:
            lines = embedded_subtitles(video) if subtitles == "embedded" else read_subtitles(subtitles)
            self.system = [subtitle_message(lines)]

    def ask(
        self, question: str, on_text: Callable[[str], None] | None = None, max_new_tokens: int = 256, **generation
    ) -> Answer:
        """Answer one question.

        Args:
            question: may name times ("from 00:00:05 to 00:00:09", "at 13.5 s").
            on_text: called with each piece of the answer as soon as it is there.
            generation: for `model.generate` (greedy by default).

        Raises:
            QuestionError: the question is empty, or holds a placeholder of the prompt, such as `<|video|>`.
        """
        if not question.strip():
            raise QuestionError("The question is empty.")
        for token in PLACEHOLDER_TOKENS.values():
            if token in question:
                raise QuestionError(
                    f"The question holds {token}, which stands for a medium in the prompt: leave it out."
                )
        inputs = self._inputs(question)
        ids = inputs["input_ids"]
        watch = _FirstToken(self.processor.tokenizer, on_text)
        start = time.perf_counter()
        output = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, streamer=watch, **{"do_sample": False, **generation}
        )
        end = time.perf_counter()
        self.fed.seconds["prefill"] += (watch.first or end) - start
        self.fed.seconds["generate"] += end - (watch.first or end)
        text = self.processor.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()
        return Answer(question, text, [[start / 1e6, end / 1e6] for start, end in parse_spans(text)])

    def _inputs(self, question: str) -> dict:
        """What `generate` takes: the prompt, and the medium as tokens that are already encoded."""
        by_question = self.sampling.get("sampling") == "query" or self.model.model.resampler.joint
        if self.kind == "video" and self.memory is None and not by_question:
            self._remember()
        medium = self.video if self.memory is None else self.memory
        messages = [
            *self.system,
            {"role": "user", "content": [{"type": self.kind, self.kind: medium}, {"type": "text", "text": question}]},
        ]
        start = time.perf_counter()
        inputs = self.processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"videos_kwargs": self.sampling} if self.memory is None else {},
        )
        decoded = time.perf_counter()
        inputs = inputs.to(self.model.device)
        media = {name: inputs.pop(name) for name in list(inputs) if name not in ("input_ids", "attention_mask")}
        memories = media.pop("mm_encoder_outputs", None)
        with torch.no_grad():
            features = self.model.model.resolve_media(media, memories)
        self.fed.tokens = sum(len(tokens) for tokens in features.pooler_output)
        self.fed.seconds["decode"] += decoded - start
        self.fed.seconds["encode"] += time.perf_counter() - decoded
        if self.memory is None:
            self._note_tensors(media)
        return {**inputs, "mm_encoder_outputs": {"video": features}}

    def _remember(self) -> None:
        timed = TimedProcessor(self.processor)
        start = time.perf_counter()
        self.memory = self.model.encode_video(self.video, timed, **self.sampling)
        self.fed.seconds["decode"] += timed.seconds
        self.fed.seconds["encode"] += time.perf_counter() - start - timed.seconds
        self.fed.frame_times = seconds_of(timed.frame_times)
        self._note_memory()

    def _note_memory(self) -> None:
        """A memory knows how many frames it is made of, but not when each of them was."""
        self.fed.frames = self.memory.num_frames
        self._note_lengths(self.memory.audio_seconds, self.memory.duration)

    def _note_tensors(self, media: dict[str, torch.Tensor]) -> None:
        if "frame_mask" in media:
            times = media["frame_times"][media["frame_mask"]].tolist()
            self.fed.frames, self.fed.frame_times = len(times), seconds_of(times)
        columns = 0
        if "input_features_mask" in media:
            columns = media["input_features_mask"].sum().item() // FBANK_FRAMES_PER_PATCH
        self._note_lengths(columns * PATCH_STEP_US / 1e6, media["video_durations"].sum().item())

    def _note_lengths(self, audio_seconds: float, duration: int) -> None:
        # The last patch of sound is completed with silence; nobody was fed more than there is.
        self.fed.video_seconds = duration / 1e6
        self.fed.audio_seconds = min(audio_seconds, self.fed.video_seconds) if duration else audio_seconds
        preprocessing = self.sampling.get("preprocessing", self.processor.video_processor.preprocessing)
        if self.kind == "video" and preprocessing == "videollama2":  # the rest of its track is silence
            self.fed.audio_seconds = min(self.fed.audio_seconds, CLIPS_SECONDS)


class PeerSession:
    """One medium, asked about with any multimodal model of transformers; it is decoded once.

    Args:
        video: path of a video, an image or a sound; or what `peer.read` made of one.
        peer: a `saven_hf.peers.auto.PeerModel`, which says which frames are taken.
        subtitles: as for `VideoSession`; they stand in front of the question.

    Attributes:
        fed: as in `VideoSession`, counted in the tensors that the model's processor made; "tokens" are those of the
            whole prompt.
    """

    def __init__(self, video, peer, subtitles: str | os.PathLike | None = None):
        self.peer, self.fed, self.text = peer, Fed(), ""
        start = time.perf_counter()
        self.material = peer.read(video) if isinstance(video, (str, os.PathLike)) else video
        self.fed.seconds["decode"] = time.perf_counter() - start
        self.fed.frame_times = self.material.frame_times
        if subtitles is not None:
            lines = embedded_subtitles(video) if subtitles == "embedded" else read_subtitles(subtitles)
            self.text = f"{subtitle_message(lines)['content']}\n\n"

    def ask(
        self, question: str, on_text: Callable[[str], None] | None = None, max_new_tokens: int = 256, **generation
    ) -> Answer:
        """Answer one question; see `VideoSession.ask`."""
        if not question.strip():
            raise QuestionError("The question is empty.")
        start = time.perf_counter()
        inputs, fed = self.peer.inputs([self.material], [self.text + question])
        encoded = time.perf_counter()
        for name, value in fed.items():
            setattr(self.fed, name, value)
        watch = _FirstToken(self.peer.tokenizer, on_text)
        (text,) = self.peer.generate(inputs, max_new_tokens=max_new_tokens, streamer=watch, **generation)
        end = time.perf_counter()
        self.fed.seconds["encode"] += encoded - start
        self.fed.seconds["prefill"] += (watch.first or end) - encoded
        self.fed.seconds["generate"] += end - (watch.first or end)
        return Answer(question, text, [[start / 1e6, end / 1e6] for start, end in parse_spans(text)])


def open_session(video, model, subtitles: str | os.PathLike | None = None, **sampling) -> VideoSession | PeerSession:
    """A session on a medium with whatever `load_any` gave."""
    if isinstance(model, tuple):
        return VideoSession(video, *model, subtitles=subtitles, **sampling)
    return PeerSession(video, model, subtitles)


def load_any(model: str | os.PathLike | None = None, device: str | None = None, **sampling):
    """A SAVEnVideo model and its processor, or a `PeerModel` of any other multimodal model of transformers.

    Args:
        model: folder or Hub id; the embedded tiny model if None.
        sampling: of frames, which a peer takes with it; SAVEnVideo takes its own when asked.

    Raises:
        ModelNotFoundError: there is no such model.
        PeerError: it is no multimodal model, or its processor needs another package.
    """
    name = resolve_model(model)
    if model_type(name) == "savenvideo":
        return load(model, device)
    from .peers.auto import PeerModel

    given = {key: value for key, value in sampling.items() if value is not None}
    return PeerModel.load(name, device, **given)


def ask(video, question: str | Iterable[str], model=None, **options) -> list[Answer]:
    """Ask one or several questions about a video.

    Args:
        video: path, bytes or file object.
        question: one question, or several; the video is decoded once.
        model: folder or Hub id of a SAVEnVideo model, the embedded tiny one if None, or of another multimodal model of
            transformers; or what `load` or `load_any` gave.
        options: for `VideoSession`.

    Example:
        >>> saven_hf.ask("clip.mp4", "What is heard from 00:00:05 to 00:00:09?")[0].answer
    """
    if model is None or isinstance(model, (str, os.PathLike)):
        sampling = {name: value for name, value in options.items() if name != "subtitles"}
        model = load_any(model, **sampling)
    session = open_session(video, model, **options)
    return [session.ask(one) for one in ([question] if isinstance(question, str) else question)]


def answer_file(
    folder: str | os.PathLike,
    questions: str | os.PathLike,
    out: str | os.PathLike,
    model,
    max_new_tokens: int = 256,
    **options,
) -> int:
    """Answer a file of questions on the videos of a folder; started again, it goes on where it stopped.

    Args:
        folder: where the videos are.
        questions: JSONL, each line an object with `video` (path within the folder) and `question`, and whatever else.
        out: JSONL; each line is the question's with `answer` and `spans` added, written as soon as it is known.
        model: what `load` or `load_any` gave.
        options: for `VideoSession`.

    Returns:
        Number of questions answered now.

    Raises:
        FileNotFoundError: there is no such question file.
        QuestionFileError: a line of it is malformed (the message names it), or `out` exists and holds something else.
    """
    asked = _read_questions(questions)
    known = _answered(out) if os.path.exists(out) else set()
    todo = [line for line in asked if (line["video"], line["question"]) not in known]
    session, current = None, None
    with open(out, "a", encoding="utf-8") as file:
        # Sorted by video, stably: each is decoded once, and its questions keep their order.
        for line in tqdm(sorted(todo, key=lambda line: line["video"]), unit="question"):
            if line["video"] != current:
                current = line["video"]
                session = open_session(os.path.join(folder, current), model, **options)
            answer = session.ask(line["question"], max_new_tokens=max_new_tokens)
            file.write(json.dumps({**line, "answer": answer.answer, "spans": answer.spans}, ensure_ascii=False) + "\n")
            file.flush()
    return len(todo)


def _read_questions(path: str | os.PathLike) -> list[dict]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no question file {os.fspath(path)!r}.")
    lines = []
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                if not (isinstance(line["video"], str) and isinstance(line["question"], str)):
                    raise TypeError
            except (json.JSONDecodeError, TypeError, KeyError) as error:
                raise QuestionFileError(
                    f"{os.fspath(path)}, line {number}: expected an object like "
                    '{"video": "a.mp4", "question": "..."}.'
                ) from error
            lines.append(line)
    return lines


def _answered(out: str | os.PathLike) -> set[tuple[str, str]]:
    """Videos and questions whose answers a file holds; a line that a stopped run left unfinished is cut off."""
    with open(out, "rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        try:
            known = {(line["video"], line["question"]) for line in map(json.loads, content[:end].splitlines())}
            if content[end : end + 1] not in (b"", b"{"):
                raise ValueError
        except (ValueError, TypeError, KeyError) as error:
            raise QuestionFileError(
                f"{os.fspath(out)} is there already and holds something other than answers: name another file."
            ) from error
        file.truncate(end)
    return known


def as_json(answers: list[Answer], fed: Fed) -> dict:
    """The object that `saven ask --json` prints."""
    return {"answers": [asdict(answer) for answer in answers], "fed": asdict(fed)}


class _FirstToken(TextStreamer):
    """Passes text on as it comes and notes when the first token was there."""

    def __init__(self, tokenizer, on_text: Callable[[str], None] | None):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text, self.first = on_text, None

    def put(self, value):
        if not self.next_tokens_are_prompt and self.first is None:
            self.first = time.perf_counter()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False):
        if self.on_text is not None and text:
            self.on_text(text)


class TimedProcessor:
    """A processor whose stream tells how long decoding took, and which frames and windows of sound came out.

    Attributes:
        seconds: spent in decoding.
        frame_times: of all frames, in microseconds.
        sound_windows: (start, end) of the audio tower's windows so far, in microseconds; none for sound without times.
    """

    def __init__(self, processor: SAVEnVideoProcessor):
        self.processor, self.seconds, self.frame_times = processor, 0.0, []
        self.sound_windows: list[tuple[int, int]] = []

    def stream_video(self, video, **options) -> _TimedStream:
        start = time.perf_counter()
        stream = self.processor.stream_video(video, **options)
        self.seconds += time.perf_counter() - start
        self.frame_times = stream.frame_times
        return _TimedStream(stream, self)


class _TimedStream:
    def __init__(self, stream, clock: TimedProcessor):
        self.stream, self.clock = stream, clock

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        chunks = iter(self.stream)
        while True:
            start = time.perf_counter()
            chunk = next(chunks, None)
            self.clock.seconds += time.perf_counter() - start
            if chunk is None:
                return
            if "audio_times" in chunk:
                columns = chunk["input_features_mask"][0].sum(-1) // FBANK_FRAMES_PER_PATCH
                for first, count in zip(chunk["audio_times"][0].tolist(), columns.tolist(), strict=True):
                    if first != NO_TIME:
                        self.clock.sound_windows.append((first, first + count * PATCH_STEP_US))
            yield chunk


def seconds_of(times: list[int]) -> list[float]:
    return [time / 1e6 for time in times if time != NO_TIME]

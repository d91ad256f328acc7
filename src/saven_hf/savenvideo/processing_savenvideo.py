"""Processor of SAVEnVideo: text with videos, images and sounds in, the tensors of the model out."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, AutoTokenizer, BatchFeature, processing_utils
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin
from transformers.video_processing_utils import VideoProcessorMixin

from .clips import Clip, list_audio, list_images, named, num_per_sample, open_image, open_sound
from .feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from .feature_extraction_speech import SAVEnVideoSpeechFeatureExtractor
from .layout import NO_TIME, SPEECH_FRAMES_PER_COLUMN, TokenLayout, audio_column_times, speech_column_times
from .media_errors import UnsupportedMediaError
from .subtitles import Subtitle, format_subtitles
from .times import parse_spans, parse_times
from .tower_features import is_tower_features
from .video_processing_savenvideo import SAVEnVideoVideoProcessor, SAVEnVideoVideoProcessorKwargs


VIDEO_TOKEN, IMAGE_TOKEN, AUDIO_TOKEN = "<|video|>", "<|image|>", "<|audio|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
KINDS = ("video", "image", "audio")

# One turn of ChatML: its role and its text.
_TURN = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)(?=<\|im_end\|>|<\|im_start\|>|\Z)", re.DOTALL)
# Text that `sanitize_control_tokens` marked as not being control tokens. Absent from older releases of transformers.
_MARKED = getattr(processing_utils, "_MARKED_RE", re.compile(r"(?!)"))

# Where a content block of a chat message may hold its medium.
_BLOCK_KEYS = {
    "video": ("video", "path", "url"),
    "image": ("image", "path", "url", "base64"),
    "audio": ("audio", "path", "url"),
}


class SAVEnVideoProcessorKwargs(ProcessingKwargs, total=False):
    # Read as an attribute by releases of transformers before 5.21.
    _defaults = {}

    videos_kwargs: SAVEnVideoVideoProcessorKwargs


@dataclass
class _Slot:
    """A placeholder and its medium: the `index`-th of its kind, in sample `sample` (None without text)."""

    kind: str
    index: int
    sample: int | None


@dataclass
class _Medium:
    """What one medium became."""

    frames: torch.Tensor | None
    frame_times: list[int]
    waveform: torch.Tensor | None
    sound_start: int
    duration: int
    memory: Any = None

    @property
    def is_timed(self) -> bool:
        return self.duration > 0


def default_chat_template() -> str | None:
    """The template beside this file; None in a copy of remote code, which loads the one that was saved."""
    path = Path(__file__).with_name("chat_template.jinja")
    return path.read_text(encoding="utf-8") if path.is_file() else None


def user_turns(text: str) -> list[str]:
    """Texts of the user's turns of a ChatML prompt; all of a text that has no turns.

    Assistant and system turns are never among them: what is read from these is a question.
    """
    text = _MARKED.sub("", text)
    if TURN_START not in text:
        return [text]
    return [match[2] for match in _TURN.finditer(text) if match[1].strip() == "user"]


def subtitle_message(subtitles: Sequence[Subtitle], heading: str = "Subtitles of the video:") -> dict[str, str]:
    """Timed text as a system turn, whose times are never taken for those of a question.

    Args:
        subtitles: of `read_subtitles` or `embedded_subtitles`.
    """
    return {"role": "system", "content": f"{heading}\n{format_subtitles(subtitles)}"}


class SAVEnVideoProcessor(ProcessorMixin):
    r"""
    Turns text with videos, images and sounds into the inputs of [`SAVEnVideoForConditionalGeneration`].

    Args:
        video_processor ([`SAVEnVideoVideoProcessor`]), feature_extractor ([`SAVEnVideoBeatsFeatureExtractor`]),
        tokenizer: the parts. The tokenizer must know `<|video|>`, `<|image|>` and `<|audio|>`; see `from_components`.
        chat_template (`str`, *optional*): ChatML with media blocks by default.
        layout (`dict`, *optional*): the model's `TokenLayout`, which decides how many tokens a medium costs.
        max_frames_in_tensor (`int`): a medium with more frames is refused here; `model.encode_video` streams it.
        speech_extractor ([`SAVEnVideoSpeechFeatureExtractor`] or `dict` of its settings, *optional*): of a model with
            a speech tower.
    """

    valid_processor_kwargs = SAVEnVideoProcessorKwargs
    skip_tensor_conversion = [*ProcessorMixin.skip_tensor_conversion, "mm_encoder_outputs"]

    def __init__(
        self,
        video_processor,
        feature_extractor,
        tokenizer,
        chat_template=None,
        layout=None,
        max_frames_in_tensor=512,
        speech_extractor=None,
    ):
        self.token_layout = TokenLayout(**(layout or {}))
        self.layout = self.token_layout.to_dict()
        self.max_frames_in_tensor = max_frames_in_tensor
        if isinstance(speech_extractor, dict):
            speech_extractor = SAVEnVideoSpeechFeatureExtractor(**speech_extractor)
        if speech_extractor is not None and speech_extractor.sampling_rate != feature_extractor.sampling_rate:
            raise ValueError(
                f"The speech tower takes sound of {speech_extractor.sampling_rate} Hz and the audio tower of "
                f"{feature_extractor.sampling_rate} Hz: a medium is read at one rate."
            )
        self.speech_extractor = speech_extractor
        vocabulary = tokenizer.get_vocab()
        for kind, token in zip(KINDS, (VIDEO_TOKEN, IMAGE_TOKEN, AUDIO_TOKEN), strict=True):
            token_id = vocabulary.get(token)
            if token_id is None:
                raise ValueError(
                    f"The tokenizer does not know {token}: build the processor with "
                    "`SAVEnVideoProcessor.from_components(tokenizer)`, which adds what is missing."
                )
            setattr(self, f"{kind}_token", token)
            setattr(self, f"{kind}_token_id", token_id)
        if chat_template is None:
            chat_template = default_chat_template()
        # The base class sets this when it saves and drops it when it loads, so that the two would not be equal.
        self.auto_map = {"AutoProcessor": f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"}
        super().__init__(video_processor, feature_extractor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_components(
        cls,
        tokenizer,
        config=None,
        layout: TokenLayout | dict | None = None,
        feature_extractor=None,
        chat_template: str | None = None,
        max_frames_in_tensor: int = 512,
        speech_extractor=None,
        **video_settings,
    ) -> "SAVEnVideoProcessor":
        """Build a processor around a tokenizer.

        Tokens that the tokenizer lacks are added to it, as special tokens: the three placeholders, and those turn
        markers that the chat template writes. A missing end-of-text token becomes the end of a turn, a missing padding
        token `<|endoftext|>` or the end-of-text token; padding is put on the left, where generation needs it.

        Args:
            tokenizer: of the text model; a tokenizer, a folder or a Hub id.
            config (`SAVEnVideoConfig`, *optional*): of the model: gives the layout, the size and the normalisation of
                frames, and the number of mel bins.
            layout: instead of the config's.
            feature_extractor: instead of the published BEATs settings.
            speech_extractor: instead of the one that the config's speech tower needs.
            video_settings: settings of `SAVEnVideoVideoProcessor`; they win over the config.
        """
        if isinstance(tokenizer, (str, Path)):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        vocabulary = tokenizer.get_vocab()
        markers = [token for token in (TURN_START, TURN_END) if token in (chat_template or TURN_START + TURN_END)]
        wanted = (*markers, VIDEO_TOKEN, IMAGE_TOKEN, AUDIO_TOKEN)
        missing = [AddedToken(token, special=True, normalized=False) for token in wanted if token not in vocabulary]
        if missing:
            tokenizer.add_tokens(missing, special_tokens=True)
        if tokenizer.eos_token is None and TURN_END in markers:
            tokenizer.eos_token = TURN_END
        if tokenizer.pad_token is None:
            tokenizer.pad_token = "<|endoftext|>" if "<|endoftext|>" in vocabulary else tokenizer.eos_token
        tokenizer.padding_side = "left"
        tokenizer.init_kwargs["padding_side"] = "left"  # only what is in here is saved

        if config is not None:
            size = config.vision_config.image_size
            defaults = {
                "size": {"height": size, "width": size},
                "image_mean": list(config.image_mean),
                "image_std": list(config.image_std),
            }
            video_settings = {**defaults, **video_settings}
            layout = layout if layout is not None else TokenLayout.from_config(config)
            if feature_extractor is None:
                feature_extractor = SAVEnVideoBeatsFeatureExtractor(
                    feature_size=config.audio_config.num_mel_bins, patch_size=config.audio_config.patch_size
                )
            if speech_extractor is None:
                speech_extractor = SAVEnVideoSpeechFeatureExtractor.of(config)
        return cls(
            video_processor=SAVEnVideoVideoProcessor(**video_settings),
            feature_extractor=feature_extractor or SAVEnVideoBeatsFeatureExtractor(),
            tokenizer=tokenizer,
            chat_template=chat_template,
            layout=layout if layout is None or isinstance(layout, dict) else layout.to_dict(),
            max_frames_in_tensor=max_frames_in_tensor,
            speech_extractor=speech_extractor,
        )

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        # Parts are loaded by their class: in a process with remote code the Auto classes know none of ours.
        loaders = {
            "video_processor": SAVEnVideoVideoProcessor,
            "feature_extractor": SAVEnVideoBeatsFeatureExtractor,
            "tokenizer": AutoTokenizer,
        }
        names = cls.get_attributes()
        return [loaders[name].from_pretrained(pretrained_model_name_or_path, **kwargs) for name in names]

    def check_argument_for_proper_class(self, argument_name, argument):
        # Releases of transformers before 5.23 look for a class that needs torchvision.
        if argument_name == "video_processor":
            if not isinstance(argument, VideoProcessorMixin):
                raise TypeError(f"video_processor must be a VideoProcessorMixin, got a {type(argument).__name__}.")
            return VideoProcessorMixin
        return super().check_argument_for_proper_class(argument_name, argument)

    @property
    def model_input_names(self) -> list[str]:
        return [
            *(name for name in self.tokenizer.model_input_names if name != "token_type_ids"),
            *self.video_processor.model_input_names,
            *self.feature_extractor.model_input_names,
            *(self.speech_extractor.output_names if self.speech_extractor is not None else ()),
            *(("query_times", "query_times_mask") if self.token_layout.question_tokens else ()),
        ]

    # -------------------------------------------------------------------------------------------------------- calling

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        query_times: list | None = None,
        chat_media: dict[str, list] | None = None,
        **kwargs,
    ) -> BatchFeature:
        r"""
        Args:
            text: one prompt or a batch of them. Each `<|video|>`, `<|image|>` and `<|audio|>` takes the next medium of
                its kind, and is expanded to as many tokens as the medium costs.
            videos: one video, a list of them or one list per sample. A video is

                - a file (path, bytes, file object, `{"path", "bytes"}`): its picture and its sound; of a dict with
                  `start` or `end` (seconds) what lies between them, on the clock of the whole file;
                - a `VideoMemory` of `model.encode_video`, or `TowerFeatures` of `model.encode_towers` (which may also
                  take the place of an image or a sound);
                - frames `(n, 3, h, w)` or `(n, h, w, 3)`, or a list of them, dated by `video_metadata` or
                  `frame_times` (seconds);
                - a dict with `frames`, `frame_times` (seconds), `audio` (a waveform), `sampling_rate`, `audio_start`
                  (seconds, default 0), `duration` (seconds).
            images: files, PIL images or arrays: frames without time.
            audio: files, waveforms with `sampling_rate`, or dicts with `array` and `sampling_rate`.
            query_times: times in seconds that the question is about, one list per sample, instead of those that its
                user turns name. None in place of a list reads the text, an empty list means no times.
            chat_media: media of chat messages, passed by `apply_chat_template`.
            kwargs: settings of the parts for this call, flat or as `text_kwargs`, `videos_kwargs`, `images_kwargs`,
                `audio_kwargs`.

        Returns:
            `input_ids`, `attention_mask`, and for the media of the batch in text order the tensors that
            `SAVEnVideoForConditionalGeneration` takes; names of a modality that no medium has are left out.
            `mm_encoder_outputs` if a `VideoMemory` or `TowerFeatures` were given.
        """
        if "audios" in kwargs:
            raise ValueError("Sounds are passed as `audio`, not `audios`.")
        texts = self._list_texts(text)
        if chat_media is not None:
            videos, images, audio = (
                chat_media[kind] if _holds_any(chat_media[kind]) else given
                for kind, given in (("video", videos), ("image", images), ("audio", audio))
            )
        merged = self._merge_kwargs(
            self.valid_processor_kwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        settings = self._settings(merged["videos_kwargs"])
        sources = {
            "video": self.video_processor.list_sources(videos, settings),
            "image": list_images(images),
            "audio": list_audio(audio),
        }
        if sources["audio"] and not self.token_layout.has_audio:
            raise UnsupportedMediaError(
                "This model hears nothing: it has no audio tower. Leave the sound out, or take a model that has one."
            )
        if texts is None and not any(sources.values()):
            raise ValueError(f"{type(self).__name__} needs text, videos, images or audio: it got none of them.")
        slots = self._slots(texts, sources, {"video": videos, "image": images})
        spans, times = self._questions(texts, query_times)

        media = []
        for slot in slots:
            source = sources[slot.kind][slot.index]
            label = {"video": "videos", "image": "images", "audio": "audio"}[slot.kind]
            with named(f"{label}[{slot.index}]", len(slots)):
                media.append(self._read(slot, source, settings, merged, spans[slot.sample or 0]))
        data, num_tokens = self._encode_media(media, [times[slot.sample or 0] for slot in slots])

        return_tensors = merged["text_kwargs"].get("return_tensors")
        if texts is not None:
            counts = {kind: [0] * len(sources[kind]) for kind in KINDS}
            for slot, count in zip(slots, num_tokens, strict=True):
                counts[slot.kind][slot.index] = count
            data = {**self._tokenize(texts, counts, merged), **data}
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion)

    @staticmethod
    def _list_texts(text: str | list[str] | None) -> list[str] | None:
        if text is None:
            return None
        texts = [text] if isinstance(text, str) else list(text) if isinstance(text, (list, tuple)) else [text]
        if not texts or not all(isinstance(sample, str) for sample in texts):
            raise ValueError("`text` must be a string or a list of strings.")
        return texts

    def _slots(self, texts: list[str] | None, sources: dict[str, list], given: dict[str, Any]) -> list[_Slot]:
        """Media in the order of the text; without text, videos, images and sounds in turn."""
        if texts is None:
            return [_Slot(kind, index, None) for kind in KINDS for index in range(len(sources[kind]))]
        tokens = {getattr(self, f"{kind}_token"): kind for kind in KINDS}
        pattern = re.compile("|".join(map(re.escape, tokens)))
        slots, found = [], dict.fromkeys(KINDS, 0)
        per_sample = {kind: [0] * len(texts) for kind in KINDS}
        for sample, text in enumerate(texts):
            for match in pattern.finditer(_MARKED.sub("", text)):
                kind = tokens[match[0]]
                slots.append(_Slot(kind, found[kind], sample))
                found[kind] += 1
                per_sample[kind][sample] += 1
        for kind in KINDS:
            token, number = getattr(self, f"{kind}_token"), len(sources[kind])
            if found[kind] != number:
                raise ValueError(
                    f"The number of {token} tokens in the prompts should be the same as the number of {kind} inputs: "
                    f"found {found[kind]} {token} tokens and {number} {kind} inputs."
                )
            numbers = num_per_sample(given[kind], kind, len(texts)) if kind in given else None
            if numbers is not None and numbers != per_sample[kind]:
                raise ValueError(
                    f"The samples have {per_sample[kind]} {token} tokens, but were given {numbers} {kind} inputs."
                )
        return slots

    def _settings(self, videos_kwargs: dict) -> dict[str, Any]:
        """Settings of the video processor for a call; a model without an audio tower hears no sound of videos."""
        settings = self.video_processor.settings(**videos_kwargs)
        return settings if self.token_layout.has_audio else {**settings, "use_audio_in_video": False}

    def _questions(self, texts: list[str] | None, query_times: list | None) -> tuple[list, list]:
        """Per sample the spans and the times that its question names, in microseconds.

        Times are None for a sample whose question names none.
        """
        count = 1 if texts is None else len(texts)
        if query_times is not None and not self.token_layout.question_tokens:
            raise ValueError(
                "This model is not told times (question_times='none'): leave `query_times` out, and name them in the "
                "question's text."
            )
        turns = [[]] if texts is None else [user_turns(text) for text in texts]
        spans = [[span for turn in sample for span in parse_spans(turn)] for sample in turns]
        times = [list(dict.fromkeys(time for turn in sample for time in parse_times(turn))) for sample in turns]
        times = [sample or None for sample in times]
        if query_times is None:
            return spans, times
        if count == 1 and all(isinstance(time, (int, float)) for time in query_times):
            query_times = [query_times]
        if len(query_times) != count:
            raise ValueError(f"Got {len(query_times)} lists of `query_times` for {count} samples: pass one for each.")
        for sample, given in enumerate(query_times):
            if given is not None:
                times[sample] = [round(float(time) * 1e6) for time in given]
                spans[sample] = [(time, time) for time in times[sample]]
        return spans, times

    def _read(self, slot: _Slot, source: Any, settings: dict, merged: dict, spans: list) -> _Medium:
        """Open one medium and read what the model gets of it."""
        rate = self.feature_extractor.sampling_rate
        if slot.kind == "video":
            if settings["spans"] is None:
                settings = {**settings, "spans": spans}
            clip = self.video_processor.open(source, settings, sampling_rate=rate)
        elif slot.kind == "image":
            given = {name: merged["images_kwargs"].get(name) for name in settings}
            given = {name: value for name, value in given.items() if value is not None}
            settings = self.video_processor.settings(**{**settings, **given})
            clip = open_image(source, settings)
        else:
            clip = open_sound(source, merged["audio_kwargs"].get("sampling_rate"), rate, settings)
        with clip:
            if clip.memory is not None:
                self._check_memory(clip.memory, settings)
                times = clip.memory.frame_times.tolist() if is_tower_features(clip.memory) else []
                return _Medium(None, times, None, NO_TIME, clip.duration, clip.memory)
            if len(clip.frame_times) > self.max_frames_in_tensor:
                raise ValueError(
                    f"{len(clip.frame_times)} frames were asked for, more than max_frames_in_tensor="
                    f"{self.max_frames_in_tensor}: encode the video with `model.encode_video(...)`, which streams it, "
                    "and pass the VideoMemory that it returns; or take fewer frames."
                )
            if not clip.frame_times and not clip.num_samples:
                raise ValueError("There is neither a picture nor a sound to take from it.")
            frames = self.video_processor.read(clip, settings)
            waveform = clip.samples(0, clip.num_samples) if clip.num_samples else None
            return _Medium(frames, clip.frame_times, waveform, clip.sound_start, clip.duration)

    def _check_memory(self, memory: Any, settings: dict) -> None:
        of_towers = is_tower_features(memory)
        own = self._hash(settings, with_layout=not of_towers)
        if memory.preprocessing_hash != own:
            these = "These TowerFeatures were" if of_towers else "This VideoMemory was"
            raise ValueError(
                f"{these} made with other preprocessing ({memory.preprocessing_hash[:12]}) than this processor's "
                f"({own[:12]}): encode the video again with this processor."
            )
        if of_towers and not (len(memory.frame_times) or len(memory.column_times)):
            raise ValueError("These TowerFeatures hold neither a picture nor a sound.")

    def _encode_media(self, media: list[_Medium], times: list[list[int] | None]) -> tuple[dict[str, Any], list[int]]:
        """Tensors of all media, and the number of tokens of each."""
        if not media:
            return {}, []
        data = self.video_processor.stack(
            [medium.frames for medium in media],
            [medium.frame_times for medium in media],
            [medium.duration for medium in media],
        )
        heard = [row for row, medium in enumerate(media) if medium.waveform is not None]
        columns, speech = [[] for _ in media], [[] for _ in media]
        for dates, (extractor, features, starts, dates_of) in zip((columns, speech), self._hearing, strict=False):
            if not heard:
                break
            for name, tensor in self._hear([media[row] for row in heard], extractor).items():
                fill = NO_TIME if name == starts else 0
                data[name] = tensor.new_full((len(media), *tensor.shape[1:]), fill)
                data[name][heard] = tensor
            for row in heard:
                num_frames = data[f"{features}_mask"][row].sum(-1).tolist()
                dates[row] = dates_of(data[starts][row].tolist(), num_frames)
        for row, medium in enumerate(media):
            if is_tower_features(medium.memory):
                columns[row] = medium.memory.column_times.tolist()
                speech[row] = medium.memory.speech_times.tolist()

        queries = []
        for medium, named_times in zip(media, times, strict=True):
            default = [0, medium.duration]
            told = medium.is_timed and self.token_layout.question_tokens
            queries.append((default if named_times is None else named_times) if told else [])
        if any(queries):
            longest = max(map(len, queries))
            data["query_times"] = torch.full((len(media), longest), NO_TIME, dtype=torch.int64)
            data["query_times_mask"] = torch.zeros(len(media), longest, dtype=torch.bool)
            for row, query in enumerate(queries):
                data["query_times"][row, : len(query)] = torch.tensor(query, dtype=torch.int64)
                data["query_times_mask"][row, : len(query)] = True

        num_tokens = []
        for medium, heard_columns, speech_columns, query in zip(media, columns, speech, queries, strict=True):
            if medium.memory is None or is_tower_features(medium.memory):
                args = (medium.frame_times, heard_columns, medium.duration, len(query), speech_columns)
                num_tokens.append(self.token_layout.num_tokens(*args))
            else:
                num_tokens.append(medium.memory.num_tokens + len(query))
        if any(medium.memory is not None for medium in media):
            data["mm_encoder_outputs"] = {"video": [medium.memory for medium in media]}
        return data, num_tokens

    @property
    def _hearing(self) -> list[tuple]:
        """Of audio and speech tower: the extractor, the names of features and of the times of their windows, and what
        dates their columns."""
        towers = [(self.feature_extractor, "input_features", "audio_times", audio_column_times)]
        if self.speech_extractor is not None:
            towers.append((self.speech_extractor, "speech_features", "speech_times", speech_column_times))
        return towers

    def _hear(self, media: list[_Medium], extractor) -> BatchFeature:
        return extractor(
            [medium.waveform for medium in media],
            sampling_rate=extractor.sampling_rate,
            start_times=[medium.sound_start for medium in media],
            return_tensors="pt",
        )

    def _tokenize(self, texts: list[str], counts: dict[str, list[int]], merged: dict) -> dict[str, Any]:
        """Expand the placeholders and tokenize."""
        text_kwargs = dict(merged["text_kwargs"])
        options = {
            name: text_kwargs.pop(name, None) or merged.get(name, False)
            for name in ("return_mm_token_type_ids", "return_text_replacement_offsets")
        }
        inputs = {"num_tokens": counts}
        texts, offsets = self.get_text_with_replacements(
            list(texts),
            images_replacements=[self.replace_image_token(inputs, index) for index in range(len(counts["image"]))],
            videos_replacements=[self.replace_video_token(inputs, index) for index in range(len(counts["video"]))],
            audio_replacements=[self.replace_audio_token(inputs, index) for index in range(len(counts["audio"]))],
        )
        data = dict(self.tokenizer(texts, **text_kwargs))
        self._check_no_media_cut(texts, data["input_ids"])
        if options["return_text_replacement_offsets"]:
            data["text_replacement_offsets"] = offsets
        if options["return_mm_token_type_ids"]:
            data["mm_token_type_ids"] = self.create_mm_token_type_ids(data["input_ids"])
        return data

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        return self.video_token * video_inputs["num_tokens"]["video"][video_idx]

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        return self.image_token * image_inputs["num_tokens"]["image"][image_idx]

    def replace_audio_token(self, audio_inputs: dict, audio_idx: int, **kwargs) -> str:
        return self.audio_token * audio_inputs["num_tokens"]["audio"][audio_idx]

    def _check_no_media_cut(self, texts: list[str], input_ids: Any) -> None:
        for kind in KINDS:
            token, token_id = getattr(self, f"{kind}_token"), getattr(self, f"{kind}_token_id")
            for text, ids in zip(texts, input_ids, strict=True):
                expected, left = _MARKED.sub("", text).count(token), list(ids).count(token_id)
                if expected != left:
                    raise ValueError(
                        f"Truncation cut the media of a sample: {left} of {expected} {token} tokens are left. Raise "
                        "max_length, turn truncation off, or take fewer frames."
                    )

    # -------------------------------------------------------------------------------------------------- chat messages

    def apply_chat_template(
        self,
        conversation: list,
        chat_template: str | None = None,
        tokenize: bool = False,
        load_audio_from_video: bool = False,
        processor_kwargs: dict | None = None,
        **kwargs,
    ):
        r"""
        [`ProcessorMixin.apply_chat_template`] without its loaders, which fetch URLs: media of the messages go to
        `__call__` as they are.

        Args:
            conversation: messages, or a batch of conversations. Content is a string or a list of blocks
                `{"type": "text" | "video" | "image" | "audio", ...}`; a medium is under `video` / `image` / `audio`
                or `path`.
            load_audio_from_video: the sound of a video is part of it here, so an empty audio block behind a video,
                which stands for it elsewhere, is dropped.
            processor_kwargs: arguments of `__call__`.
        """
        if tokenize:
            conversation, media = self._take_media(conversation, load_audio_from_video)
            processor_kwargs = {**(processor_kwargs or {}), "chat_media": media}
            if media["audio"]:
                self._name_sampling_rate(processor_kwargs)
        return super().apply_chat_template(
            conversation, chat_template, tokenize=tokenize, processor_kwargs=processor_kwargs, **kwargs
        )

    def _name_sampling_rate(self, processor_kwargs: dict) -> None:
        """Say at which rate waveforms of messages are taken, where the caller's own setting was."""
        rate = self.feature_extractor.sampling_rate
        audio_kwargs = processor_kwargs.get("audio_kwargs") or {}
        if "sampling_rate" in audio_kwargs:
            processor_kwargs["audio_kwargs"] = {**audio_kwargs, "sampling_rate": audio_kwargs["sampling_rate"] or rate}
        else:
            processor_kwargs["sampling_rate"] = processor_kwargs.get("sampling_rate") or rate

    @staticmethod
    def _take_media(conversation: list, sound_of_video: bool) -> tuple[list, dict[str, list]]:
        """Copies of the messages with bare blocks, and the media that the blocks held, one list per conversation."""
        first = conversation[0] if len(conversation) else None
        is_batch = isinstance(first, (list, tuple)) or hasattr(first, "content")
        bare, media = [], {kind: [] for kind in KINDS}
        for messages in conversation if is_batch else [conversation]:
            taken = {kind: [] for kind in KINDS}
            bare_messages = []
            for message in messages:
                content = message.get("content") if isinstance(message, dict) else None
                if isinstance(content, (list, tuple)):
                    message = {**message, "content": _take_blocks(content, taken, sound_of_video)}
                bare_messages.append(message)
            bare.append(bare_messages)
            media["video"].append(taken["video"])
            media["image"].append(taken["image"])
            media["audio"].extend(taken["audio"])
        return (bare if is_batch else bare[0]), media

    # ------------------------------------------------------------------------------------------------------- streaming

    def stream_video(self, video: Any, **videos_kwargs) -> "VideoStream":
        """Read one video window by window, however long it is; see `VideoStream`. `model.encode_video` uses it."""
        return VideoStream(self, video, videos_kwargs)

    def preprocessing_hash(self, **videos_kwargs) -> str:
        """Fingerprint of everything here that changes what the encoders see of a frame or a sound, and of the layout.

        Which frames are taken is not part of it: a memory knows its own.
        """
        return self._hash(self._settings(videos_kwargs))

    def tower_preprocessing_hash(self, **videos_kwargs) -> str:
        """`preprocessing_hash` without the layout, which the towers know nothing of."""
        return self._hash(self._settings(videos_kwargs), with_layout=False)

    def _hash(self, settings: dict, with_layout: bool = True) -> str:
        pixels = ("size", "do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize")
        facts = {name: settings[name] for name in pixels}
        if settings["do_normalize"]:
            facts.update({name: _as_list(settings[name]) for name in ("image_mean", "image_std")})
        sound = ("feature_size", "sampling_rate", "patch_size", "patches_per_window", "mean", "std")
        facts.update({name: getattr(self.feature_extractor, name) for name in sound})
        # What came later is a fact only where it is not as it always was: encoded media stay good.
        if self.feature_extractor.fbank_dtype != "float32":
            facts["fbank_dtype"] = self.feature_extractor.fbank_dtype
        if settings["preprocessing"] != "whole":
            facts.update({name: settings[name] for name in ("preprocessing", "do_center_crop")})
        if self.speech_extractor is not None:
            facts["speech"] = {name: getattr(self.speech_extractor, name) for name in self.speech_extractor.facts}
        if with_layout:
            facts["layout"] = self.layout
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    # ------------------------------------------------------------------------------------------------- serving engines

    def _get_num_multimodal_tokens(
        self,
        image_sizes: Sequence[Sequence[int]] | None = None,
        video_sizes: Sequence[Sequence[int]] | None = None,
        audio_lengths: Sequence[int] | None = None,
        **kwargs,
    ) -> MultiModalData:
        """Tokens of media by their sizes alone, as vLLM asks.

        Videos, `(frames, height, width)`, are taken to come as frames without times, as vLLM passes them, and sounds,
        in samples, to be asked about by a question that names no times.
        """
        data = {}
        if image_sizes is not None:
            tokens = self.token_layout.num_tokens([NO_TIME], [], 0, 0)
            data["num_image_tokens"] = [tokens] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            data["num_video_tokens"] = [
                self.token_layout.num_tokens([NO_TIME] * size[0], [], 0, 0) for size in video_sizes
            ]
        if audio_lengths is not None:
            rate = self.feature_extractor.sampling_rate
            data["num_audio_tokens"] = [
                self.token_layout.num_tokens(
                    [],
                    self.feature_extractor.column_times(length, 0),
                    round(length * 1e6 / rate),
                    2,
                    self._speech_columns(length, 0),
                )
                for length in audio_lengths
            ]
        return MultiModalData(**data)

    def _speech_columns(self, num_samples: int, start: int) -> list[int]:
        """Times of the columns of the speech tower of a track, from its length alone."""
        return [] if self.speech_extractor is None else self.speech_extractor.column_times(num_samples, start)

    @property
    def _window_us(self) -> int:
        """Time from one BEATs window to the next, in microseconds; an fbank frame is 10 ms."""
        return self.feature_extractor.frames_per_window * 10_000


def _holds_any(media: Sequence[Any]) -> bool:
    """Whether there is a medium among those of chat messages: lists of them, or arrays, which have no truth value."""
    return any(not isinstance(medium, list) or medium for medium in media)


def _as_list(value: Any) -> list[float]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _take_blocks(content: Sequence[Any], taken: dict[str, list], sound_of_video: bool) -> list[Any]:
    """Content blocks without their media, which are appended to `taken`."""
    blocks = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "image_url" and isinstance(block.get("image_url"), (dict, str)):  # as OpenAI writes it
            link = block["image_url"]
            kind, block = "image", {"type": "image", "url": link.get("url") if isinstance(link, dict) else link}
        if kind not in KINDS:
            blocks.append(block)
            continue
        key = next((key for key in _BLOCK_KEYS[kind] if block.get(key) is not None), None)
        if key is None and kind == "audio" and sound_of_video and blocks and blocks[-1] == {"type": "video"}:
            continue
        if key is not None:
            taken[kind].append(base64.b64decode(block[key]) if key == "base64" else block[key])
        blocks.append({"type": kind})
    return blocks


class VideoStream:
    """One video, window by window: the tensors of the direct path in pieces, in memory that stays flat.

    Attributes:
        duration: in microseconds; 0 if unknown.
        frame_times: of all frames that will come, in microseconds.
        windows: `Window`s of the layout, one for each dict that iteration yields.
        preprocessing_hash, tower_preprocessing_hash: see the methods of `SAVEnVideoProcessor`.
        sampling: how frames were chosen, see `SAVEnVideoVideoProcessor.sampling_of`.
    """

    def __init__(self, processor: SAVEnVideoProcessor, video: Any, videos_kwargs: dict):
        self._processor = processor
        self._settings = processor._settings(videos_kwargs)
        if self._settings["sampling"] == "query" and self._settings["spans"] is None:
            raise ValueError("sampling='query' needs the `spans` that a question asks about; a stream knows none.")
        sources = processor.video_processor.list_sources(video, self._settings)
        if len(sources) != 1:
            raise ValueError(f"A stream is of one video, got {len(sources)}.")
        self._source = sources[0]
        with self._open() as clip:
            if clip.memory is not None:
                raise ValueError(f"A {type(clip.memory).__name__} is encoded already: pass it to the processor.")
            self.duration, self.frame_times, self._num_samples = clip.duration, clip.frame_times, clip.num_samples
            self.windows = processor.token_layout.plan(
                clip.frame_times,
                processor.feature_extractor.column_times(clip.num_samples, clip.sound_start),
                clip.duration,
                processor._speech_columns(clip.num_samples, clip.sound_start),
            )
        if not self.windows:
            raise ValueError("There is neither a picture nor a sound to take from the video.")
        self.preprocessing_hash = processor._hash(self._settings)
        self.tower_preprocessing_hash = processor._hash(self._settings, with_layout=False)
        self.sampling = processor.video_processor.sampling_of(self._settings)

    def __len__(self) -> int:
        return len(self.windows)

    def _open(self) -> Clip:
        rate = self._processor.feature_extractor.sampling_rate
        return self._processor.video_processor.open(self._source, self._settings, sampling_rate=rate)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Tensors of one medium (leading dimension 1): the frames of a window, and the sound that begins before its
        end and was not yielded before. What a window does not have is left out; `video_durations` is always there.
        """
        with self._open() as clip:
            heard = {kind: 0 for kind in ("columns", "speech")}
            for number, window in enumerate(self.windows):
                frames = self._processor.video_processor.read(clip, self._settings, window.frames)
                times = [clip.frame_times[index] for index in window.frames]
                data = self._processor.video_processor.stack([frames], [times], [self.duration])
                for kind, sound in self._sounds(clip).items():
                    until = sound.until(window, getattr(window, kind), number + 1 == len(self.windows))
                    if until > heard[kind]:
                        data.update(self._sound(clip, sound, heard[kind], until))
                        heard[kind] = until
                yield data

    def _sounds(self, clip: Clip) -> dict[str, "_Sound"]:
        """What each tower that hears cuts the sound of a clip into."""
        processor, extractor = self._processor, self._processor.feature_extractor
        columns = len(extractor.column_times(clip.num_samples, clip.sound_start))
        # The last fbank frame of a window reaches 15 ms into the next.
        sounds = {
            "columns": _Sound(
                extractor, clip.sound_start, extractor.patches_per_window, processor._window_us, columns, 15
            )
        }
        if processor.speech_extractor is not None:
            extractor = processor.speech_extractor
            per_window = extractor.nb_max_frames // SPEECH_FRAMES_PER_COLUMN
            columns = len(processor._speech_columns(clip.num_samples, clip.sound_start))
            sounds["speech"] = _Sound(extractor, clip.sound_start, per_window, extractor.window_us, columns, 0)
        return sounds

    def _sound(self, clip: Clip, sound: "_Sound", first: int, last: int) -> dict[str, torch.Tensor]:
        """Features of a tower's windows [first, last)."""
        rate = sound.extractor.sampling_rate
        step = sound.window_us // 1000 * rate // 1000
        end = min(last * step + rate * sound.overhang_ms // 1000, clip.num_samples)
        start = clip.sound_start
        if start != NO_TIME:
            start += first * sound.window_us
        medium = _Medium(None, [], clip.samples(first * step, end), start, 0)
        return dict(self._processor._hear([medium], sound.extractor))


@dataclass
class _Sound:
    """A track as one tower hears it: in windows of `per_window` columns and `window_us` microseconds, from `start` on,
    `num_columns` in all; a window's features reach `overhang_ms` into the next."""

    extractor: Any
    start: int
    per_window: int
    window_us: int
    num_columns: int
    overhang_ms: int

    def until(self, window, columns: list[int], is_last: bool) -> int:
        """Number of the tower's windows that are needed up to the end of `window`, which holds `columns`."""
        total = -(-self.num_columns // self.per_window)
        if is_last:
            return total
        needed = max(columns) // self.per_window + 1 if columns else 0
        if window.timed:
            needed = max(needed, -(-(window.end - self.start) // self.window_us))
        return min(needed, total)


__all__ = ["SAVEnVideoProcessor", "SAVEnVideoProcessorKwargs", "VideoStream", "subtitle_message"]

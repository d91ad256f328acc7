"""Models of one's own machine, through transformers: Qwen2-VL, Qwen2-Audio and Qwen2.5 as in the paper, or others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import AnnotatorError, ReplyError
from .base import model_files
from .prompted import PromptedAnnotator, Request


logger = logging.getLogger(__name__)

# The paper's choice, in the sizes that fit one GPU of 24 GB one at a time.
VISUAL, AUDIO, TEXT = "Qwen/Qwen2-VL-7B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"


class TransformersAnnotator(PromptedAnnotator):
    """Asks models that run here.

    Args:
        visual_model: folder or Hub id of one that takes images (`AutoModelForMultimodalLM`), or (model, processor).
        audio_model: of one that takes sound, the same way.
        text_model: of a language model (`AutoModelForCausalLM`), or (model, tokenizer).
        device: where to run; by default spread over the GPUs there are, else the CPU.
        dtype: of the weights, such as "bfloat16"; "auto" takes that of the checkpoint.
        options: of `PromptedAnnotator`.

    Models are loaded when they are first asked. One model of all kinds, such as an omni model, may be given three
    times: it is loaded once.
    """

    name = "transformers"

    def __init__(
        self,
        visual_model: Any = VISUAL,
        audio_model: Any = AUDIO,
        text_model: Any = TEXT,
        device: str | None = None,
        dtype: str = "auto",
        **options: Any,
    ):
        super().__init__(**options)
        self._sources = {"visual": visual_model, "audio": audio_model, "text": text_model}
        self._device, self._dtype = device, dtype
        self._loaded: dict[tuple[str, bool], tuple[Any, Any]] = {}
        self._tokens = {"prompt_tokens": 0.0, "completion_tokens": 0.0, "calls": 0.0}

    @property
    def models(self) -> list[str]:
        names = [
            source if isinstance(source, str) else source[0].config.model_type for source in self._sources.values()
        ]
        return list(dict.fromkeys(names))

    @property
    def settings(self) -> dict[str, Any]:
        folders = {kind: source for kind, source in self._sources.items() if isinstance(source, str)}
        return super().settings | {"dtype": self._dtype, "files": {kind: model_files(source) for kind, source in
                                                                   folders.items()}}  # fmt: skip

    def usage(self) -> dict[str, float]:
        return dict(self._tokens)

    def complete(self, requests: Sequence[Request]) -> list[str | ReplyError]:
        return [self._reply(request) for request in requests]

    @torch.inference_mode()
    def _reply(self, request: Request) -> str | ReplyError:
        model, processor = self._model(request.kind)
        messages, media = _messages(request, self._is_text_only(request.kind))
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], return_tensors="pt", **media).to(model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(model.dtype)
        given = inputs["input_ids"].shape[1]
        out = model.generate(**inputs, max_new_tokens=request.most_tokens, do_sample=False)[0, given:]
        self._tokens["calls"] += 1
        self._tokens["prompt_tokens"] += given
        self._tokens["completion_tokens"] += len(out)
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        if len(out) >= request.most_tokens and not ends & set(out.tolist()):
            return ReplyError([f"The answer was cut off after {request.most_tokens} tokens."])
        reply = processor.decode(out, skip_special_tokens=True)
        return reply if reply.strip() else ReplyError(["The answer is empty."])

    def _is_text_only(self, kind: str) -> bool:
        """Whether a request's model is a plain language model; one that serves several kinds is not."""
        source = self._sources["text"]
        return kind == "text" and source not in (self._sources["visual"], self._sources["audio"])

    def _model(self, kind: str) -> tuple[Any, Any]:
        source = self._sources[kind]
        if not isinstance(source, str):
            return source
        key = source, self._is_text_only(kind)
        if key not in self._loaded:
            self._loaded[key] = self._load(*key)
        return self._loaded[key]

    def _load(self, source: str, is_text_only: bool) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer

        logger.info("loading %s", source)
        placed: dict[str, Any] = {"dtype": self._dtype}
        if self._device is None and torch.cuda.is_available():
            placed["device_map"] = "auto"
        kind, reader = (
            (AutoModelForCausalLM, AutoTokenizer) if is_text_only else (AutoModelForMultimodalLM, AutoProcessor)
        )
        try:
            processor = reader.from_pretrained(source)
            model = kind.from_pretrained(source, **placed).eval()
        except (OSError, ValueError) as error:
            raise AnnotatorError(f"The model {source!r} cannot be loaded: {error}") from error
        except ImportError as error:  # transformers names what is missing
            raise AnnotatorError(f"The processor of {source!r} needs another package: {error}") from error
        return (model if self._device is None else model.to(self._device)), processor


def _messages(request: Request, is_text_only: bool) -> tuple[list[dict], dict[str, Any]]:
    """Chat messages with a block for each medium, and the media as the processor takes them."""
    blocks: list[dict] = []
    media: dict[str, Any] = {}
    if request.frames is not None:
        from PIL import Image

        blocks += [{"type": "image"} for _ in request.frames]
        media["images"] = [Image.fromarray(np.ascontiguousarray(frame)) for frame in request.frames]
    if request.sound is not None:
        # Templates tell sound by the key: they differ in its name.
        blocks.append({"type": "audio", "audio": "sound", "audio_url": "sound"})
        media["audio"] = [request.sound]
    system, user = request.prompt
    if is_text_only:
        return [{"role": "system", "content": system}, {"role": "user", "content": user}], media
    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": [*blocks, {"type": "text", "text": user}]},
    ], media

"""Benchmarks and models by the names that `saven eval` takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..hub import ModelNotFoundError, load, model_type, resolve_model, usable_device
from .adapters import Adapter, MemoryAdapter
from .avbench import AVBench
from .aveb import AVEB, TASKS
from .baselines import GuessingAdapter, TextAdapter
from .endpoint import EndpointAdapter
from .music_avqa import MusicAVQA
from .open_qa import OpenQA
from .published import BenchmarkFileError, PublishedBenchmark
from .transformers_adapter import TransformersAdapter
from .videomme import VideoMME


PUBLISHED = (
    "avbench", "videomme", "videomme-subtitles", "music-avqa", "open-qa", *(f"aveb-{task}" for task in TASKS)
)  # fmt: skip
BENCHMARKS = ("world", "world-sync", *PUBLISHED)
BASELINES = (*GuessingAdapter.RULES, "text-only", "speech-text")


class AdapterError(ValueError):
    """A model, an endpoint or a baseline that is asked for in a way that does not go together."""


def open_benchmark(
    name: str,
    data: str | os.PathLike,
    split: str | None = None,
    spool: str | os.PathLike | None = None,
    limit: int | None = None,
) -> PublishedBenchmark:
    """A published benchmark by name.

    Args:
        name: one of `PUBLISHED`.
        data: its file, or a folder with it and the media.
        split: where the benchmark has some: of AVBench's parquet, of MUSIC-AVQA; the rules of open-qa.
        spool: where videos go that have to be written first.
        limit: ask about the first so many videos alone.

    Raises:
        BenchmarkFileError: there is no such benchmark, split or file.
    """
    if name not in PUBLISHED:
        raise BenchmarkFileError(f"There is no benchmark {name!r}: one of {', '.join(BENCHMARKS)}.")
    if name == "avbench":
        return AVBench(data, split, spool, limit)
    if name == "music-avqa":
        return MusicAVQA(data, split or "test", limit)
    if name == "open-qa":
        return OpenQA(data, split, limit)
    if split is not None:
        raise BenchmarkFileError(f"{name} has no splits.")
    if name.startswith("aveb-"):
        return AVEB(name.removeprefix("aveb-"), data, spool, limit)
    return VideoMME(data, name == "videomme-subtitles", limit)


def open_adapter(
    model: str | os.PathLike | None = None,
    device: str | None = None,
    baseline: str | None = None,
    endpoint: str | None = None,
    speech_model: str | None = None,
    batch_size: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    **sampling,
) -> Adapter:
    """A model, a baseline or an endpoint as an adapter.

    Args:
        model: folder or Hub id of a SAVEnVideo model (the embedded one if None) or of any other multimodal model; the
            model's name at an endpoint; the language model of the baselines "text-only" and "speech-text": of
            transformers, or that of a SAVEnVideo.
        baseline: one of `BASELINES`.
        endpoint: address of an OpenAI-compatible endpoint; its key is read from OPENAI_API_KEY.
        speech_model: folder or Hub id of a speech recogniser, or "subtitles", for "speech-text".
        sampling: `sampling`, `num_frames`, `fps`, `max_frames`.

    Raises:
        ModelNotFoundError: there is no such model.
        AdapterError: arguments that do not go together.
        PeerError: a model that is no multimodal one, or whose processor needs another package.
    """
    sizes = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if endpoint is not None:
        if model is None or baseline is not None:
            raise AdapterError("an endpoint needs the name of its model, and is no baseline")
        unknown = [name for name, value in sampling.items() if value is not None and name != "num_frames"]
        if unknown:
            raise AdapterError(f"to an endpoint, frames are sent uniformly: leave {unknown[0]!r} out")
        workers = {"workers": sizes.pop("batch_size")} if "batch_size" in sizes else {}
        frames = {name: value for name, value in sampling.items() if value is not None}
        return EndpointAdapter(endpoint, str(model), os.environ.get("OPENAI_API_KEY"), **frames, **workers, **sizes)
    if baseline in GuessingAdapter.RULES:
        return GuessingAdapter(baseline, seed)
    if baseline is not None:
        return _text_adapter(model, device, baseline, speech_model, sizes)
    name = resolve_model(model)
    if model_type(name) == "savenvideo":
        return MemoryAdapter(*load(model, device), **sizes, **sampling)
    from ..peers.auto import PeerModel

    given = {key: value for key, value in sampling.items() if value is not None}
    return TransformersAdapter(PeerModel.load(name, device, **given), **sizes)


def _text_adapter(model, device, baseline: str, speech_model: str | None, sizes: dict[str, Any]) -> TextAdapter:
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    if baseline not in BASELINES:
        raise AdapterError(f"there is no baseline {baseline!r}: one of {', '.join(BASELINES)}")
    if model is None:
        raise AdapterError(f"the baseline {baseline!r} needs a language model: name it with --model")
    if (baseline == "speech-text") != (speech_model is not None):
        raise AdapterError("'speech-text', and it alone, needs a speech recogniser or 'subtitles' (--speech-model)")
    name, where = resolve_model(model), usable_device(device)
    try:
        if model_type(name) == "savenvideo":
            # Without media it is its language model.
            language, processor = load(name, where)
            tokenizer, sizes = processor.tokenizer, {**sizes, "worded": True}
            tokenizer.chat_template = processor.chat_template
        else:
            language = AutoModelForCausalLM.from_pretrained(name, dtype="auto").to(where).eval()
            tokenizer = AutoTokenizer.from_pretrained(name)
        speech = speech_model
        if speech_model not in (None, "subtitles"):
            # Longer sound than a recogniser's window is cut into parts that overlap.
            speech = pipeline(
                "automatic-speech-recognition", resolve_model(speech_model), device=where, chunk_length_s=30
            )
    except (OSError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelNotFoundError(f"{name!r}, or its speech recogniser, cannot be loaded: {line[:200]}") from error
    return TextAdapter(language, tokenizer, Path(name).name, speech, **sizes)

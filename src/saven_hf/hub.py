"""Model folders: the embedded default, loading, and putting a 7B together from its parts."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedConfig

from .peers.checkpoint import fresh_folder, whole_folder
from .savenvideo import (
    SAVEnVideoBeatsFeatureExtractor,
    SAVEnVideoConfig,
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoProcessor,
    SAVEnVideoVideoProcessor,
)
from .savenvideo.modeling_savenvideo import PLACEHOLDER_TOKENS
from .savenvideo.processing_savenvideo import TURN_START


logger = logging.getLogger(__name__)

DEFAULT_MODEL = "savenvideo-tiny"

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


class ModelNotFoundError(ValueError):
    """What was named as a model is neither a model folder nor an id that can be reached."""


class DeviceError(ValueError):
    """What was named as a device is none, or cannot be used here."""


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """A device that tensors can be put on; by default the GPU if there is one, else the CPU.

    Under `accelerate launch` or `torchrun` the default is the GPU of this process, by its local rank; processes take
    turns where there are fewer GPUs than processes, or one is shown to each.

    Raises:
        DeviceError: there is no such device.
    """
    if not device:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            device = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"The device {str(device)!r} cannot be used here; try 'cpu'.") from error
    return device


def model_type(name: str | os.PathLike) -> str | None:
    """The model type that the config of a folder or Hub id names.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    try:
        return PreTrainedConfig.get_config_dict(name)[0].get("model_type")
    except OSError as error:
        raise ModelNotFoundError(
            f"{os.fspath(name)!r} is neither a model folder nor an id that can be reached on the Hub."
        ) from error


def config_folder(name: str) -> Path:
    """A folder of `hub_configs/`: beside the sources in a checkout, inside the package when installed."""
    package = Path(__file__).parent
    for root in (package / "hub_configs", package.parents[1] / "hub_configs"):
        if (root / name / "config.json").is_file():
            return root / name
    raise ModelNotFoundError(f"This installation has no model folder {name!r} in hub_configs.")


def resolve_model(model: str | os.PathLike | None = None) -> str:
    """A path or Hub id that `from_pretrained` takes, of what a user named.

    Args:
        model: a folder; the name of a model that comes with the package, such as "savenvideo-7b"; an id on the Hub.
            None names the embedded default.

    Raises:
        ModelNotFoundError: a path that is no model folder.
    """
    if model is None:
        return str(config_folder(DEFAULT_MODEL))
    path = Path(model)
    if not path.exists() and len(path.parts) == 1:
        try:
            return str(config_folder(os.fspath(model)))
        except ModelNotFoundError:
            pass  # an id of the Hub
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file():
                raise ModelNotFoundError(
                    f"{os.fspath(model)!r} holds adapters, not a model: name {os.fspath(path / 'merged')!r}, which "
                    "`saven train` writes beside them."
                )
            raise ModelNotFoundError(f"{os.fspath(model)!r} has no config.json: it is not a model folder.")
    elif os.sep in os.fspath(model) and os.fspath(model).count("/") != 1 or path.exists():
        raise ModelNotFoundError(f"{os.fspath(model)!r} is not a model folder: there is no such directory.")
    return os.fspath(model)


def load(
    model: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    **kwargs,
) -> tuple[SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor]:
    """Load a SAVEnVideo model and its processor, ready to be asked.

    Args:
        model: folder or Hub id; None for the embedded tiny model. A folder without weights gives random ones, and a
            warning that says so.
        device: a torch device; the GPU if there is one, else the CPU.
        dtype: of the weights; bfloat16 on a GPU, else float32.
        kwargs: for `from_pretrained` (`quantization_config`, `device_map`, `attn_implementation`, `revision`, ...).

    Raises:
        ModelNotFoundError: there is no such model, or it is of another type.
        DeviceError: there is no such device.
    """
    name = resolve_model(model)
    device = usable_device(device)
    if dtype is None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    found = model_type(name)
    if found != "savenvideo":
        raise ModelNotFoundError(f"{name!r} is a model of type {found!r}; this loads 'savenvideo' models.")
    processor = SAVEnVideoProcessor.from_pretrained(name)
    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in WEIGHT_FILES):
        logger.warning("%s holds no weights: the model starts from random ones and knows nothing.", folder.name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loaded = SAVEnVideoForConditionalGeneration(SAVEnVideoConfig.from_pretrained(name)).to(dtype)
    else:
        loaded = SAVEnVideoForConditionalGeneration.from_pretrained(name, dtype=dtype, **kwargs)
    if "device_map" not in kwargs and "quantization_config" not in kwargs:
        loaded = loaded.to(device)
    return loaded.eval(), processor


def save_plain(folder: str | os.PathLike, *parts) -> None:
    """Save models, processors or configs into a folder as `hub_configs/` holds it.

    Without the source files that a saved model carries, which stand in `savenvideo/`, without the release of
    transformers that wrote it, since any in range writes the same, and without the paths that its parts came from.
    """
    for part in parts:
        part.save_pretrained(folder)
    for source in Path(folder).glob("*.py"):
        source.unlink()
    for path in Path(folder).glob("*config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings.pop("transformers_version", None)
        for part in (settings, *(part for part in settings.values() if isinstance(part, dict))):
            if "_name_or_path" in part:
                part["_name_or_path"] = ""
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def init_from(
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: str = "5GB",
    **settings,
) -> Path:
    """Start a SAVEnVideo from a converted VideoLLaMA 2: its towers, language model and audio MLP, a fresh AVTS.

    The audio MLP leads into the language model's space, so the resampler is made as wide as that. The connector of
    VideoLLaMA 2 has no MLP over single patches of the picture: that one is fresh, as are TLP and AVTS. Train them with
    the recipe `videollama2/align-avts`.

    Args:
        source: folder written by `saven convert videollama2`, of a model that hears, with Qwen2.
        output_dir: folder to write; it must not hold anything yet.
        settings: fields of `SAVEnVideoConfig` that shall differ from the 7B's.

    Returns:
        The folder.

    Raises:
        ModelNotFoundError: `source` is no such model.
        FileExistsError: `output_dir` holds something.
    """
    fresh_folder(output_dir)
    base, donor = load(source, "cpu", dtype)
    if base.config.resampler_type != "stc" or not base.config.has_audio_tower:
        raise ModelNotFoundError(
            f"{os.fspath(source)!r} is no audio-visual VideoLLaMA 2: convert one with `saven convert videollama2`."
        )
    if TURN_START not in (donor.chat_template or ""):
        raise ModelNotFoundError(
            f"The language model of {os.fspath(source)!r} does not speak ChatML, in which the questions of a prompt "
            "are told from its answers: take one with Qwen2."
        )
    inner, text = base.model, base.config.text_config
    template = SAVEnVideoConfig.from_pretrained(config_folder("savenvideo-7b")).connector_settings()
    taken = {name: getattr(base.config, name) for name in ("vision_feature_layer", "image_mean", "image_std")}
    taken |= {name: getattr(base.config, name) for name in PLACEHOLDER_TOKENS}
    taken |= {"resampler_hidden_size": text.hidden_size, "vision_config": inner.vision_tower.config}
    taken |= {"audio_config": inner.audio_tower.config, "text_config": text}
    config = SAVEnVideoConfig(**{**template, **taken, **settings})
    model = SAVEnVideoForConditionalGeneration.assemble(
        config,
        inner.vision_tower,
        inner.audio_tower,
        inner.language_model,
        base.lm_head,
        base.generation_config,
        dtype,
    )
    audio_mlp = inner.resampler.audio_mlp.state_dict()
    if config.resampler_hidden_size == text.hidden_size:
        model.model.resampler.audio_mlp.load_state_dict(audio_mlp)
    else:
        logger.warning(
            "The audio MLP is new: resampler_hidden_size=%d is not the %d of the language model.",
            config.resampler_hidden_size,
            text.hidden_size,
        )
    processor = SAVEnVideoProcessor.from_components(donor.tokenizer, config=config)
    with whole_folder(output_dir) as folder:
        processor.save_pretrained(folder)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
    return Path(output_dir)


def init_7b(
    output_dir: str | os.PathLike,
    vision: str = "google/siglip-so400m-patch14-384",
    audio: str | os.PathLike = "beats-iter3plus",
    text: str = "Qwen/Qwen2-7B-Instruct",
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: str = "5GB",
    speech: str | os.PathLike | None = None,
    like: str = "savenvideo-7b",
) -> Path:
    """Assemble the paper's 7B from its published parts (SigLIP, BEATs, Qwen2) and a fresh connector.

    Args:
        output_dir: folder to write; it must not hold anything yet.
        vision: folder or Hub id of a SigLIP (2) checkpoint.
        audio: folder written by `saven convert beats`.
        text: folder or Hub id of the language model.
        dtype: of the weights on disk.
        max_shard_size: of one weight file.
        speech: folder or Hub id of a Whisper checkpoint, for a speech tower beside BEATs.
        like: folder of `hub_configs/` whose connector and processor settings are taken, such as "favor-7b".

    Returns:
        The folder: weights, config, processor, chat template.

    Raises:
        ModelNotFoundError: a component that is neither a folder nor can be reached.
        FileExistsError: `output_dir` holds something.
    """
    fresh_folder(output_dir)
    for part, name in (("vision", vision), ("audio", audio), ("text", text), ("speech", speech)):
        if name is None:
            continue
        if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
            raise ModelNotFoundError(f"The {part} component {os.fspath(name)!r} has no config.json.")
        model_type(name)
    template = SAVEnVideoConfig.from_pretrained(config_folder(like))
    frames = SAVEnVideoVideoProcessor.from_pretrained(config_folder(like))
    tokenizer = AutoTokenizer.from_pretrained(text)
    model = SAVEnVideoForConditionalGeneration.from_components(
        vision, audio, text, tokenizer=tokenizer, dtype=dtype, speech=speech, **template.connector_settings()
    )
    processor = SAVEnVideoProcessor.from_components(
        tokenizer,
        config=model.config,
        feature_extractor=SAVEnVideoBeatsFeatureExtractor.from_pretrained(audio),
        **{name: getattr(frames, name) for name in ("sampling", "num_frames", "fps", "max_frames")},
    )
    with whole_folder(output_dir) as folder:
        processor.save_pretrained(folder)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
    return Path(output_dir)

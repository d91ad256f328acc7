"""The frozen towers, run over what is valid of a batch and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from transformers import (
    AutoConfig,
    CLIPVisionModel,
    PreTrainedModel,
    Siglip2VisionModel,
    SiglipVisionModel,
    WhisperModel,
)
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, ModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .layout import (
    NO_TIME,
    PATCH_CENTRE_US,
    PATCH_STEP_US,
    SPEECH_CENTRE_US,
    SPEECH_FRAMES_PER_COLUMN,
    SPEECH_STEP_US,
    SPEECH_TOKENS_PER_COLUMN,
)
from .weights import execution_device


VISION_TOWERS = {
    "siglip_vision_model": SiglipVisionModel,
    "siglip2_vision_model": Siglip2VisionModel,
    "clip_vision_model": CLIPVisionModel,
}

PACKED = ("states", "times", "media")


@dataclass
class EncodedModality:
    """One modality of a batch after its tower, packed over what is valid, medium after medium.

    states: `(n, patches, bands or tokens of a speech column, hidden)`; times: `(n,)` int64 microseconds; media:
    `(n,)`, the owner of each row; tower: the tower's own output, None if it did not run.
    """

    states: torch.Tensor
    times: torch.Tensor
    media: torch.Tensor
    tower: ModelOutput | None = None

    @classmethod
    def absent(cls, rows: int, hidden_size: int) -> EncodedModality:
        none = torch.zeros(0, dtype=torch.int64)
        return cls(torch.zeros(0, rows, hidden_size), none, none)

    @classmethod
    def cat(cls, parts: list[EncodedModality]) -> EncodedModality:
        """One after the other, on the device of the first."""
        if len(parts) == 1:
            return parts[0]
        device = parts[0].states.device
        return cls(*(torch.cat([getattr(part, name).to(device) for part in parts]) for name in PACKED))

    def on(self, device: str | torch.device) -> EncodedModality:
        """The rows on a device, without the tower's output."""
        return EncodedModality(*(getattr(self, name).to(device) for name in PACKED))

    def by_medium(self, count: int) -> list[list[int]]:
        """The times of each of `count` media."""
        times, sizes = self.times.tolist(), torch.bincount(self.media, minlength=count).tolist()
        ends = list(accumulate(sizes))
        return [times[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def then(self, other: EncodedModality) -> EncodedModality:
        """These rows, and after them those of `other`."""
        if not len(self.times):
            return other
        if not len(other.times):
            return self
        return EncodedModality.cat([self, other])

    def joined(self, encoded: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> EncodedModality:
        """These rows and those of media that were encoded ahead, in the order of the media.

        Args:
            encoded: `states` and `times` of each, by the index of the medium.
        """
        ahead = [
            EncodedModality(states, times, torch.full_like(times, index))
            for index, (states, times) in sorted(encoded.items())
            if len(times)
        ]
        if not ahead:
            return self
        if not len(self.times):
            return EncodedModality.cat(ahead)
        rows = EncodedModality.cat([self, *ahead])
        order = torch.argsort(rows.media, stable=True)
        return EncodedModality(*(getattr(rows, name)[order] for name in PACKED), tower=self.tower)

    def after(self, rows: int) -> EncodedModality:
        """All but the first `rows` rows."""
        # A copy: a view would keep the whole storage alive.
        return EncodedModality(self.states[rows:].clone(), self.times[rows:].clone(), self.media[rows:].clone())


class WaitingColumns:
    """Columns of one kind of sound that later windows of a stream still need, and no more.

    Attributes:
        rows: them; released: how many were let go of.
    """

    def __init__(self, rows: EncodedModality):
        self.rows, self.released = rows, 0

    def add(self, rows: EncodedModality) -> None:
        self.rows = self.rows.then(rows)

    def local(self, columns: list[int]) -> list[int]:
        """Where columns of the whole medium are in `rows`."""
        return [column - self.released for column in columns]

    def release(self, columns: list[int], later: Iterable[list[int]]) -> None:
        """Let go of all up to the last of `columns`, but for what a later window shares with this one."""
        if columns:
            first = next((needed[0] for needed in later if needed), columns[-1] + 1)
            done = min(columns[-1] + 1, first) - self.released
            self.rows, self.released = self.rows.after(done), self.released + done


def encode_frames(tower: PreTrainedModel, config, media: dict[str, torch.Tensor], **kwargs) -> EncodedModality:
    """Vision tower over the valid frames of a batch.

    Args:
        tower: one of `VISION_TOWERS`; config: the `SAVEnVideoConfig`.
        media: tensors of the model's own input format (see `SAVEnVideoModel.get_video_features`).
    """
    vision = config.vision_config
    pixels = media.get("pixel_values_videos")
    if pixels is None:
        return EncodedModality.absent(config.patches_per_frame, vision.hidden_size)
    if pixels.ndim != 5 or tuple(pixels.shape[2:]) != (3, vision.image_size, vision.image_size):
        raise ValueError(
            f"`pixel_values_videos` has the shape {tuple(pixels.shape)}, but the vision tower takes "
            f"(media, frames, 3, {vision.image_size}, {vision.image_size})."
        )
    mask = media.get("frame_mask", torch.ones(pixels.shape[:2], dtype=torch.bool, device=pixels.device)).bool()
    times = media.get("frame_times", torch.full_like(mask, NO_TIME, dtype=torch.int64))
    device, dtype = execution_device(tower), tower.dtype
    mean, std = torch.tensor([config.image_mean, config.image_std], device=device)[..., None, None]
    layer, all_layers = config.vision_feature_layer, kwargs.get("output_hidden_states")
    if layer != -1:
        kwargs["output_hidden_states"] = True

    def encode(frames: torch.Tensor):
        frames = frames.to(device)
        if not frames.is_floating_point():
            frames = (frames.to(torch.float32) / 255 - mean) / std
        inputs = {"pixel_values": frames.to(dtype)}
        if vision.model_type == "siglip2_vision_model":
            inputs = siglip2_inputs(inputs["pixel_values"], vision.patch_size)
        output = tower(**inputs, **kwargs)
        if layer == -1 and vision.model_type != "clip_vision_model":
            return output
        patches = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        if vision.model_type == "clip_vision_model":
            patches = patches[:, 1:]  # the first is the class token
        # Every layer of every frame would be gigabytes: only the one in use is kept, unless all are asked for.
        return BaseModelOutputWithPooling(
            last_hidden_state=patches,
            hidden_states=output.hidden_states if all_layers else None,
            attentions=output.attentions,
        )

    with torch.set_grad_enabled(torch.is_grad_enabled() and not config.freeze_vision):
        output = _in_batches(encode, config.tower_batch_size, pixels[mask])
    if output is None:
        return EncodedModality.absent(config.patches_per_frame, vision.hidden_size)
    return EncodedModality(output.last_hidden_state, times[mask], torch.nonzero(mask)[:, 0], output)


def encode_audio(tower: PreTrainedModel | None, config, media: dict[str, torch.Tensor], **kwargs) -> EncodedModality:
    """Audio tower over the valid windows of a batch, and of those the valid columns. Arguments as `encode_frames`."""
    bands, hidden_size = config.audio_bands, config.audio_config.hidden_size
    features = media.get("input_features")
    if features is None:
        return EncodedModality.absent(bands, hidden_size)
    mask = media.get("input_features_mask", torch.ones(features.shape[:-1], device=features.device)).bool()
    if features.ndim != 4 or mask.shape != features.shape[:-1]:
        raise ValueError(
            f"`input_features` has the shape {tuple(features.shape)} and its mask {tuple(mask.shape)}; expected "
            "(media, windows, fbank_frames, mels) and (media, windows, fbank_frames)."
        )
    heard = mask.any(-1)
    if tower is None and heard.any():
        raise ValueError(
            "Got sound as `input_features`, but this model has no audio tower (has_audio_tower=False): it hears "
            "nothing. Use the processor of this model, or leave the sound out with use_audio_in_video=False."
        )
    if tower is None:
        return EncodedModality.absent(bands, hidden_size)
    starts = media.get("audio_times", torch.full_like(heard, NO_TIME, dtype=torch.int64))
    device, dtype = execution_device(tower), tower.dtype

    def encode(features: torch.Tensor, mask: torch.Tensor):
        return tower(features.to(device, dtype), mask.to(device), **kwargs)

    with torch.set_grad_enabled(torch.is_grad_enabled() and not config.freeze_audio):
        output = _in_batches(encode, config.tower_batch_size, features[heard], mask[heard])
    if output is None:
        return EncodedModality.absent(bands, hidden_size)
    valid = output.token_mask.unflatten(1, (-1, bands)).all(-1)
    starts = starts[heard].to(valid.device)[:, None]
    steps = torch.arange(valid.shape[1], device=valid.device) * PATCH_STEP_US + PATCH_CENTRE_US
    times = torch.where(starts == NO_TIME, NO_TIME, starts + steps)
    owners = torch.nonzero(heard)[:, :1].to(valid.device).expand_as(valid)
    states = output.last_hidden_state.unflatten(1, (-1, bands))
    return EncodedModality(states[valid], times[valid], owners[valid], output)


def encode_speech(tower: PreTrainedModel | None, config, media: dict[str, torch.Tensor], **kwargs) -> EncodedModality:
    """Speech tower over the valid windows of a batch, and of those the valid columns; none without a speech tower.

    Arguments as `encode_frames`. The encoder takes windows of one length and no mask: what is padding becomes what
    Whisper's own features are of digital silence, and its tokens are dropped.
    """
    features = media.get("speech_features")
    if tower is None:
        if features is not None:
            raise ValueError("Got `speech_features`, but this model has no speech tower (`speech_config` is None).")
        return EncodedModality.absent(SPEECH_TOKENS_PER_COLUMN, 0)
    size = config.speech_config.d_model
    if features is None:
        return EncodedModality.absent(SPEECH_TOKENS_PER_COLUMN, size)
    mask = media.get("speech_features_mask", torch.ones(features.shape[:-1], device=features.device)).bool()
    mels, longest = config.speech_config.num_mel_bins, 2 * config.speech_config.max_source_positions
    if features.ndim != 4 or mask.shape != features.shape[:-1] or features.shape[-1] != mels:
        raise ValueError(
            f"`speech_features` has the shape {tuple(features.shape)} and its mask {tuple(mask.shape)}; expected "
            f"(media, windows, frames, {mels}) and (media, windows, frames)."
        )
    if features.shape[2] > longest or features.shape[2] % SPEECH_FRAMES_PER_COLUMN:
        raise ValueError(
            f"`speech_features` has windows of {features.shape[2]} frames; the speech tower takes at most {longest}, "
            f"and whole columns of {SPEECH_FRAMES_PER_COLUMN}."
        )
    heard = mask.any(-1)
    starts = media.get("speech_times", torch.full_like(heard, NO_TIME, dtype=torch.int64))
    device, dtype = execution_device(tower), tower.dtype

    def encode(features: torch.Tensor, mask: torch.Tensor):
        features, mask = features.to(device, torch.float32), mask.to(device)
        loudest = features.masked_fill(~mask[..., None], -torch.inf).amax((1, 2), keepdim=True)
        # Log-mel values are clipped to 8 below the loudest and to -10, then x becomes (x + 4) / 4.
        silence = (loudest - 2.0).clamp(min=-1.5)
        whole = silence.expand(-1, longest, mels).clone()
        whole[:, : features.shape[1]] = torch.where(mask[..., None], features, silence)
        output = tower(whole.transpose(1, 2).to(dtype), **kwargs)
        columns = features.shape[1] // SPEECH_FRAMES_PER_COLUMN
        return BaseModelOutput(
            last_hidden_state=output.last_hidden_state[:, : columns * SPEECH_TOKENS_PER_COLUMN],
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    with torch.set_grad_enabled(torch.is_grad_enabled() and not config.freeze_speech):
        output = _in_batches(encode, config.tower_batch_size, features[heard], mask[heard])
    if output is None:
        return EncodedModality.absent(SPEECH_TOKENS_PER_COLUMN, size)
    states = output.last_hidden_state.unflatten(1, (-1, SPEECH_TOKENS_PER_COLUMN))
    valid = mask[heard].unflatten(1, (-1, SPEECH_FRAMES_PER_COLUMN)).all(-1).to(states.device)
    starts = starts[heard].to(valid.device)[:, None]
    steps = torch.arange(valid.shape[1], device=valid.device) * SPEECH_STEP_US + SPEECH_CENTRE_US
    times = torch.where(starts == NO_TIME, NO_TIME, starts + steps)
    owners = torch.nonzero(heard)[:, :1].to(valid.device).expand_as(valid)
    return EncodedModality(states[valid], times[valid], owners[valid], output)


def load_speech_tower(name_or_path: str, dtype: torch.dtype) -> WhisperEncoder:
    """The encoder half of a Whisper checkpoint."""
    config = AutoConfig.from_pretrained(name_or_path)
    if config.model_type != "whisper":
        raise ValueError(
            f"The speech component {name_or_path!r} is of type {config.model_type!r}; expected 'whisper'."
        )
    return WhisperModel.from_pretrained(name_or_path, dtype=dtype).get_encoder()


def load_vision_tower(name_or_path: str, dtype: torch.dtype) -> PreTrainedModel:
    """The vision half of a SigLIP (2) or CLIP checkpoint, without its pooling head."""
    config = AutoConfig.from_pretrained(name_or_path)
    config = getattr(config, "vision_config", config)
    if config.model_type not in VISION_TOWERS:
        raise ValueError(
            f"The vision component {name_or_path!r} is of type {config.model_type!r}; expected one of "
            f"{sorted(VISION_TOWERS)}."
        )
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return VISION_TOWERS[config.model_type].from_pretrained(name_or_path, config=config, dtype=dtype)


def _in_batches(encode: Callable, size: int, *inputs: torch.Tensor) -> ModelOutput | None:
    """Outputs of `encode` over `inputs`, `size` rows at a time, as one; None if there are no rows."""
    outputs = [encode(*rows) for rows in zip(*(tensor.split(size) for tensor in inputs), strict=True) if len(rows[0])]
    if len(outputs) < 2:
        return outputs[0] if outputs else None

    def join(values):
        if isinstance(values[0], torch.Tensor):
            return torch.cat(values)
        return tuple(join(layer) for layer in zip(*values, strict=True))

    return type(outputs[0])(**{name: join([output[name] for output in outputs]) for name in outputs[0]})


def siglip2_inputs(frames: torch.Tensor, patch_size: int) -> dict[str, torch.Tensor]:
    """What SigLIP 2 takes for square frames `(n, 3, side, side)`: flat patches, their mask and grid."""
    count, channels, height, width = frames.shape
    rows, columns = height // patch_size, width // patch_size
    patches = frames.reshape(count, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": patches.reshape(count, rows * columns, -1),
        "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.int64, device=frames.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * count, device=frames.device),
    }

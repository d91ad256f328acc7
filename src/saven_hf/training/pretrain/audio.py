"""A tiny BEATs, pretrained to tell what sounds in every 160 ms of the world's sound tracks.

Our decision: the published BEATs learns from masked patches and its own tokens; a world that knows what it plays
needs no such detour. The heads are thrown away afterwards.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...savenvideo.configuration_beats import SAVEnVideoBeatsConfig
from ...savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from ...savenvideo.layout import PATCH_STEP_US
from ...savenvideo.media import open_media
from ...savenvideo.media_sniff import import_av
from ...savenvideo.modeling_beats import SAVEnVideoBeatsModel
from ...world.scenes import Scene, Sound
from ...world.sounds import GLIDE_OCTAVES, click_times, pulse_times, render_sound
from ...world.splits import sample_scene
from ...world.video import AUDIO_RATE, add_sound, encode_sound
from ...world.vocabulary import GLIDES, LOUDNESSES, MAX_PULSES, PITCHES, SILENT, TIMBRES
from .loop import CHECKPOINT, config_settings, fit


# What is told of the sound of a column, if there is any.
ATTRIBUTES = {
    "timbre": tuple(TIMBRES),
    "pitch": tuple(PITCHES),
    "glide": tuple(GLIDES),
    "loudness": tuple(LOUDNESSES),
    "pulses": tuple(range(MAX_PULSES + 1)),
}
UNKNOWN = -100  # what cross_entropy ignores
PARTS = 8  # of a column, each sounding or not: pulses may be shorter than a column
_LEAST_PARTS = 2  # of a column that have to sound for its attributes to be asked
# Windows as the model meets them, and shorter ones, which hold more scenes in a step and cost less for each column.
_WINDOW_COLUMNS, _WINDOW_SHARES = (16, 31, 62), (0.35, 0.4, 0.25)
_SCENE_COLUMNS = 90  # about as many as are left of a scene
_OCTAVE_WEIGHT = 10.0
ENCODED_SCENES, _AAC_SHARE = 32, 0.1  # how many scenes go through a lossy codec, how often one of them is heard
_NOISE_DB, _GAIN_DB = (-90.0, -50.0), 1.0
_SAMPLING_RATE, _COLUMN_SAMPLES = 16_000, 2560
_SCENE_SEEDS = 2**31


def tiny_audio_config(**settings) -> SAVEnVideoBeatsConfig:
    return SAVEnVideoBeatsConfig(
        **{
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "patch_embed_dim": 64,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "num_buckets": 64,
            "max_bucket_distance": 256,
            "layerdrop": 0.0,
            **settings,
        }
    )


def pretrain_audio(
    output_dir: str | os.PathLike,
    *,
    config: SAVEnVideoBeatsConfig | None = None,
    steps: int = 2000,
    batch_columns: int = 496,
    learning_rate: float = 1e-3,
    seed: int = 0,
    save_steps: int = 200,
    stop_after: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> SAVEnVideoBeatsModel | None:
    """Train an audio tower from nothing on the sound of random train scenes; run again, it goes on after a kill.

    Args:
        output_dir: gets the tower (`save_pretrained`), `losses.jsonl` and, until it is complete, a checkpoint.
        config: of the tower; `tiny_audio_config()` if None.
        batch_columns: columns of 160 ms in a step.
        stop_after: leave after this many steps with a checkpoint.

    Returns:
        The tower, or None if `stop_after` came first.

    Raises:
        PretrainError: the folder was begun with other settings.
    """
    config = config or tiny_audio_config()
    torch.manual_seed(seed)
    listener = _Listener(config).to(device)
    recordings = Recordings(seed, ENCODED_SCENES)

    def loss_of(step: int):
        rng = np.random.default_rng([seed, 1 + step])
        features, mask, labels = sound_batch(recordings, rng, batch_columns, config)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            told = listener(features.to(device), mask.to(device))
        return _loss(told, {name: values.to(device) for name, values in labels.items()})

    settings = {"seed": seed, "batch_columns": batch_columns, "config": config_settings(config)}
    complete = fit(
        listener, loss_of, output_dir, steps=steps, learning_rate=learning_rate, settings=settings,
        save_steps=save_steps, stop_after=stop_after, progress=progress,
    )  # fmt: skip
    if not complete:
        return None
    listener.tower.save_pretrained(output_dir)
    (Path(output_dir) / CHECKPOINT).unlink()
    return listener.tower


class _Listener(nn.Module):
    """The tower and a linear head over the mean of each column's bands."""

    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.tower = SAVEnVideoBeatsModel(config)
        self.bands = config.num_mel_bins // config.patch_size
        sizes = {name: len(values) for name, values in ATTRIBUTES.items()}
        sizes |= {"sounding": PARTS, "click": 1, "octave": 1}
        self.heads = nn.ModuleDict({name: nn.Linear(config.hidden_size, size) for name, size in sizes.items()})

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """`(windows, frames, mels)` and its mask to `(windows, columns, classes)` for each head."""
        states = self.tower(features, mask).last_hidden_state.unflatten(1, (-1, self.bands)).mean(2)
        return {name: head(states).float() for name, head in self.heads.items()}


def _loss(told: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    """Sum of the heads' losses over the columns with a label, and the share of attributes told right."""
    losses, right = {}, {}
    for name in ATTRIBUTES:
        logits, truth = told[name].flatten(0, 1), labels[name].flatten()
        known = truth != UNKNOWN
        # A batch may hold no column of the kind: the sum over none is 0, its mean would be NaN.
        summed = nn.functional.cross_entropy(logits, truth, ignore_index=UNKNOWN, reduction="sum")
        losses[name] = summed / known.sum().clamp(min=1)
        right[name] = ((logits.argmax(-1) == truth) & known).sum().item() / max(1, known.sum().item())
    for name in ("sounding", "click"):
        logits, truth = told[name], labels[name].view_as(told[name])
        known = truth != UNKNOWN
        losses[name] = nn.functional.binary_cross_entropy_with_logits(logits[known], truth[known])
        right[name] = ((logits > 0) == (truth > 0.5))[known].float().mean().item()
    known = labels["octave"] != UNKNOWN
    off = told["octave"].squeeze(-1)[known] - labels["octave"][known]
    losses["octave"] = _OCTAVE_WEIGHT * off.square().sum() / known.sum().clamp(min=1)
    return sum(losses.values()), right


# ---------------------------------------------------------------------------------------------------------------------
# Sound and what is to be told of it


def sound_batch(
    recordings: Recordings, rng: np.random.Generator, columns: int, config: SAVEnVideoBeatsConfig
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Windows of the sound of random train scenes, all of one length.

    Args:
        columns: of the batch, at most.

    Returns:
        What the model takes, `(windows, frames, mels)` and its mask `(windows, frames)`; and for each window the
        labels of `column_labels`.
    """
    length = int(rng.choice(_WINDOW_COLUMNS, p=_WINDOW_SHARES))
    scenes, tracks, rates, starts = [], [], [], []
    for _ in range(1 + columns // _SCENE_COLUMNS):
        scene, waveform, rate = recordings.draw(rng)
        # Windows begin anywhere, not only at the beginning of a scene.
        skipped = int(rng.integers(min(length * _COLUMN_SAMPLES, len(waveform) // 2)))
        scenes.append(scene)
        tracks.append(waveform[skipped:])
        rates.append(rate)
        starts.append(skipped * 1_000_000 // _SAMPLING_RATE)
    extractor = SAVEnVideoBeatsFeatureExtractor(
        feature_size=config.num_mel_bins, patch_size=config.patch_size, patches_per_window=length
    )
    inputs = extractor(tracks, sampling_rate=_SAMPLING_RATE, start_times=starts, return_tensors="pt")
    valid = inputs["input_features_mask"].any(-1).nonzero()
    chosen = valid[torch.from_numpy(rng.permutation(len(valid)))][: max(1, columns // length)]
    track, window = chosen.unbind(1)
    features, mask = inputs["input_features"][track, window], inputs["input_features_mask"][track, window]
    heard = mask.unflatten(1, (-1, config.patch_size)).all(-1)
    labels = [
        column_labels(scenes[at], heard.shape[1], int(inputs["audio_times"][at, window]), rates[at])
        for at, window in chosen.tolist()
    ]
    joined = {name: torch.stack([one[name] for one in labels]) for name in labels[0]}
    for values in joined.values():
        values[~heard] = UNKNOWN
    return features, mask, joined


class Recordings:
    """Sound of random train scenes at 16 kHz as a microphone and a file might have it.

    A small share of it went through AAC. Encoding takes longer than learning, so a few scenes are encoded, once; heard
    more often, they would be learnt by heart.

    Args:
        seed: of the encoded scenes.
        encoded: how many.
    """

    def __init__(self, seed: int, encoded: int):
        rng = np.random.default_rng([seed, 0])
        scenes = [_train_scene(rng) for _ in range(encoded)]
        self._encoded = [(scene, _through_aac(render_sound(scene, AUDIO_RATE))) for scene in scenes]

    def draw(self, rng: np.random.Generator) -> tuple[Scene, np.ndarray, int]:
        """A scene, its samples, and the rate at which they were rendered."""
        if self._encoded and rng.random() < _AAC_SHARE:
            scene, waveform = self._encoded[rng.integers(len(self._encoded))]
            rate = AUDIO_RATE
        else:
            scene, rate = _train_scene(rng), _SAMPLING_RATE
            waveform = render_sound(scene, rate)
        gain = 10 ** (rng.uniform(-_GAIN_DB, _GAIN_DB) / 20)
        noise = 10 ** (rng.uniform(*_NOISE_DB) / 20) * rng.standard_normal(len(waveform), dtype=np.float32)
        return scene, (gain * waveform + noise).astype(np.float32), rate


def _train_scene(rng: np.random.Generator) -> Scene:
    return sample_scene(int(rng.integers(_SCENE_SEEDS)), "train")


def _through_aac(waveform: np.ndarray) -> np.ndarray:
    """48 kHz samples, encoded and decoded again as those of `write_video` are, at 16 kHz."""
    av, file = import_av(), io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = add_sound(container)
        encode_sound(av, container, stream, waveform, 0)
        container.mux(stream.encode(None))
    with open_media(file.getvalue()) as media:
        decoded, start = media.audio(sampling_rate=_SAMPLING_RATE)
    out = np.zeros(len(waveform) * _SAMPLING_RATE // AUDIO_RATE, dtype=np.float32)
    first = start * _SAMPLING_RATE // 1_000_000
    kept = decoded.numpy()[: len(out) - first]
    out[first : first + len(kept)] = kept
    return out


def column_labels(
    scene: Scene, columns: int, start: int = 0, sampling_rate: int = _SAMPLING_RATE
) -> dict[str, torch.Tensor]:
    """What sounds in each of a window's columns of 160 ms; `UNKNOWN` where there is no saying.

    Args:
        columns: of the window.
        start: of the first column, in microseconds.
        sampling_rate: at which the sound was rendered: clicks depend on it.

    Returns:
        "timbre", "pitch", "glide", "loudness" `(columns,)` int64: index into `ATTRIBUTES` for the event that sounds
        most in the column; unknown below 40 ms of sound.
        "pulses" `(columns,)` int64: of that event; unknown unless all of it lies in the window.
        "octave" `(columns,)` float: octaves of its pitch above the middle of the pitch's name.
        "sounding" `(columns, 8)` float: 1 for each 20 ms that are mostly sound.
        "click" `(columns,)` float: 1 if a click of the clutter begins there.
    """
    part = PATCH_STEP_US // PARTS
    edges = start + part * np.arange(columns * PARTS + 1)
    events = scene.sounds
    heard, octave = np.zeros((len(events), columns * PARTS)), np.zeros((len(events), columns * PARTS))
    for at, event in enumerate(events):
        for begin, end in pulse_times(event):
            inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin), 0, None) / part
            heard[at] += inside
            position = np.clip((edges[:-1] + part / 2 - begin) / (end - begin), 0, 1) - 0.5
            glided = GLIDES[event.glide] * GLIDE_OCTAVES * position + np.log2(event.detune)
            octave[at] += inside * glided
    by_column = heard.reshape(len(events), columns, PARTS).sum(2)
    owner = by_column.argmax(0)
    amount = by_column.max(0)
    known = amount >= _LEAST_PARTS
    whole = np.array([event.start >= start and event.end <= edges[-1] for event in events])

    labels = {}
    for name, values in ATTRIBUTES.items():
        index = [values.index(_attribute(event, name)) if event.kind != SILENT else UNKNOWN for event in events]
        kept = known & whole[owner] if name == "pulses" else known
        labels[name] = torch.from_numpy(np.where(kept, np.array(index)[owner], UNKNOWN))
    summed = octave.reshape(len(events), columns, PARTS).sum(2)[owner, np.arange(columns)]
    labels["octave"] = torch.from_numpy(np.where(known, summed / np.maximum(amount, 1e-6), UNKNOWN)).float()
    labels["sounding"] = torch.from_numpy(heard.sum(0).reshape(columns, PARTS) > 0.5).float()
    labels["click"] = torch.zeros(columns)
    for time in click_times(scene, sampling_rate):
        column = (time - start) // PATCH_STEP_US
        if 0 <= column < columns:
            labels["click"][column] = 1
    return labels


def _attribute(event: Sound, name: str) -> str | int:
    return getattr(event.kind if name in event.kind._fields else event, name)

"""Any multimodal model of transformers, asked about media files: what it can take is read off its processor.

Files are read by our own media layer, so that frames have their true times and sound is whole, and are handed over as
arrays. Nothing is taken on trust: what reached the model is counted in the tensors that the processor made.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.video_utils import VideoMetadata

from ..hub import usable_device
from ..savenvideo.media import open_media


# Tensors that stand for sound, under the names that models of today give them, and their masks.
_SOUND = ("input_features", "input_audio_embeds", "audio_values", "input_values_audio", "audio_features")
_SOUND_MASKS = ("feature_attention_mask", "input_features_mask", "audio_attention_mask", "padding_mask")
_PICTURE = ("pixel_values_videos", "pixel_values")


class PeerError(ValueError):
    """A model that cannot be loaded as a multimodal model, or a medium that it cannot take."""


@dataclass
class Material:
    """What a file holds, as far as it will be shown.

    Attributes:
        kind: "video", "image", "audio" or "none".
        frames: `(frames, height, width, 3)` uint8, or None.
        frame_times: of the frames, in seconds.
        waveform: `(samples,)` float32 at the model's rate, or None; what the file has before its sound is silent.
        seconds: length of the medium.
    """

    kind: str = "none"
    frames: np.ndarray | None = None
    frame_times: list[float] = field(default_factory=list)
    waveform: np.ndarray | None = None
    seconds: float = 0.0


class PeerModel:
    """A model and its processor, and how the two take media.

    Args:
        model: with a language model head that `generate` works on.
        processor: the model's.
        sampling, num_frames, fps, max_frames: as for `Media.sample_times`, all but "query".
        longest_side: frames are decoded no larger than this; the processor resizes them to what the model wants.

    Attributes:
        hears: how sound is fed: "in video" (the processor weaves it into the video), "beside" (a block of its own), or
            None for a model without ears.
        sees: "video", "images" (frames one by one) or None.
    """

    def __init__(
        self,
        model,
        processor,
        sampling: str = "uniform",
        num_frames: int = 16,
        fps: float | None = None,
        max_frames: int | None = None,
        longest_side: int = 768,
    ):
        self.model, self.processor, self.longest_side = model, processor, longest_side
        self.sampling = {"sampling": sampling, "num_frames": num_frames, "fps": fps, "max_frames": max_frames}
        parts = {name: getattr(processor, name, None) for name in ("video_processor", "image_processor")}
        self.sees = "video" if parts["video_processor"] is not None else "images" if parts["image_processor"] else None
        self.listener = next(
            (
                part
                for name in ("feature_extractor", "audio_processor")
                if (part := getattr(processor, name, None)) is not None and hasattr(part, "sampling_rate")
            ),
            None,
        )
        weaves = hasattr(type(processor), "load_audio_from_video")
        self.hears = None if self.listener is None else "in video" if weaves else "beside"
        if sampling == "query":
            raise PeerError("Frames are taken before a question is asked: choose another sampling than 'query'.")
        if self.sees is None and self.hears is None:
            raise PeerError(f"{type(processor).__name__} takes neither pictures nor sound: it is no multimodal one.")

    @classmethod
    def load(cls, name: str | os.PathLike, device: str | None = None, dtype: str = "auto", **sampling) -> PeerModel:
        """A model by folder or Hub id.

        Raises:
            PeerError: it is none of AutoModelForMultimodalLM, its processor needs a package that is not installed, or
                frames are asked for in a way that only models of this library have.
        """
        unknown = sorted(set(sampling) - {"sampling", "num_frames", "fps", "max_frames", "longest_side"})
        if unknown:
            raise PeerError(f"{name} prepares frames in its own way: {unknown[0]!r} is for SAVEnVideo alone.")
        try:
            processor = AutoProcessor.from_pretrained(name)
            model = AutoModelForMultimodalLM.from_pretrained(name, dtype=dtype)
        except ImportError as error:
            package = "torchvision" if "orchvision" in str(error) else "a package that is not installed"
            raise PeerError(
                f"The processor of {name} needs {package}: install it (pip install torchvision) and ask again."
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise PeerError(f"{name} is no multimodal model of transformers: {_first_line(error)}") from error
        return cls(model.to(usable_device(device)).eval(), processor, **sampling)

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers, as JSON."""
        name = getattr(self.model.config, "_name_or_path", "") or type(self.model).__name__
        digest = hashlib.sha256(json.dumps(self.model.config.to_diff_dict(), sort_keys=True, default=str).encode())
        for key, value in self.model.state_dict().items():
            flat = value.detach().flatten()
            part = flat[:: max(1, flat.numel() // 256)][:256].float().cpu().numpy()  # enough to tell weights apart
            digest.update(key.encode() + part.tobytes())
        return {
            "model": f"{Path(name).name} {digest.hexdigest()[:16]}",
            "frames": {**self.sampling, "longest_side": self.longest_side},
            "sees": self.sees,
            "hears": self.hears,
        }

    # -- media --------------------------------------------------------------------------------------------------------

    def read(self, path: str | os.PathLike, picture: bool = True, sound: bool = True) -> Material:
        """What a file holds that this model can take.

        Args:
            picture, sound: whether to take them.

        Raises:
            MediaError: the file cannot be read.
        """
        with open_media(path) as media:
            material = Material(media.kind, seconds=0.0 if media.kind == "image" else media.duration / 1e6)
            if picture and self.sees and media.has_video:
                wanted = media.sample_times(**self.sampling)
                frames, times = media.frames_at(wanted, fitting(media.height, media.width, self.longest_side))
                material.frames = frames.permute(0, 2, 3, 1).contiguous().numpy()
                material.frame_times = [moment / 1e6 for moment in times]
            if sound and self.hears and media.has_audio:
                rate = self.listener.sampling_rate
                waveform, start = media.audio(sampling_rate=rate)
                late = max(0, round(start * rate / 1e6)) if media.kind == "video" else 0
                material.waveform = np.concatenate([np.zeros(late, np.float32), waveform.numpy()])
        if material.frames is None:
            material.kind = "none" if material.waveform is None else "audio"
        return material

    def inputs(self, materials: Sequence[Material], prompts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `generate` takes, for several prompts about the same media.

        Returns:
            The tensors, and what is in them for one prompt: "frames", "audio_seconds", "video_seconds", "tokens" (of
            the whole prompt).
        """
        blocks, media = [], {"images": [], "videos": [], "audio": []}
        metadata: list[VideoMetadata] = []
        woven: list[int | None] = []
        for material in materials:
            self._add(material, blocks, media, metadata, woven)
        chats = [[{"role": "user", "content": [*blocks, {"type": "text", "text": prompt}]}] for prompt in prompts]
        texts = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True, "padding_side": "left"}
        times = len(prompts)
        options |= {name: list(those) * times for name, those in media.items() if those}
        if media["videos"]:
            # Frames that are taken already; `timestamps` are indices over fps, so that seconds are their own index.
            options["video_metadata"] = metadata * times
            options["do_sample_frames"] = False
            options["fps"] = self._rate(materials)
        if media["audio"]:
            options["sampling_rate"] = self.listener.sampling_rate
            options["truncation"] = False  # some feature extractors drop what is longer than they were trained on
        if any(at is not None for at in woven):
            options["load_audio_from_video"] = True
            per_prompt = len(media["videos"])
            options["audio_from_video_indices"] = [
                None if at is None else at + number * per_prompt for number in range(times) for at in woven
            ]
        inputs = self.processor(text=texts, **options)
        fed = self._audit(inputs, times, materials)
        return dict(inputs.to(self.model.device)), fed

    def _add(self, material: Material, blocks: list, media: dict[str, list], metadata: list, woven: list) -> None:
        """One file's blocks of a chat, and its arrays."""
        sound = material.waveform
        if material.kind == "image":
            blocks.append({"type": "image"})
            media["images"].append(material.frames[0])
        elif material.frames is not None and self.sees == "images":
            blocks.extend({"type": "image"} for _ in material.frames)
            media["images"].extend(material.frames)
        elif material.frames is not None:
            blocks.append({"type": "video"})
            media["videos"].append(material.frames)
            metadata.append(
                VideoMetadata(
                    total_num_frames=len(material.frames), fps=1.0, duration=material.seconds,
                    frames_indices=list(material.frame_times), height=material.frames.shape[1],
                    width=material.frames.shape[2],
                )
            )  # fmt: skip
            if sound is not None and self.hears == "in video":
                woven.append(len(media["videos"]) - 1)
                media["audio"].append(sound)
                return
        if sound is not None:
            blocks.append({"type": "audio"})
            woven.append(None)
            media["audio"].append(sound)

    @staticmethod
    def _rate(materials: Sequence[Material]) -> float:
        """Frames a second as they were taken: what models that know no times place their frames by."""
        shown = [material for material in materials if material.frames is not None and material.kind == "video"]
        return len(shown[0].frames) / shown[0].seconds if shown and shown[0].seconds else 1.0

    def _audit(self, inputs: dict[str, Any], times: int, materials: Sequence[Material]) -> dict[str, Any]:
        """What is in the tensors, whatever was meant to be there; what fills up a last patch is not counted."""
        given = sum(len(material.frames) for material in materials if material.frames is not None)
        waves = sum(len(material.waveform) for material in materials if material.waveform is not None)
        heard = self._samples(inputs) / times if self.listener is not None else 0
        seconds = min(heard, waves) / self.listener.sampling_rate if self.listener is not None else 0.0
        return {
            "frames": min(round(self._pictures(inputs) / times), given),
            "audio_seconds": round(seconds, 2),
            "video_seconds": max((material.seconds for material in materials), default=0.0),
            "tokens": int(inputs["attention_mask"][0].sum()),
        }

    def _pictures(self, inputs: dict[str, Any]) -> int:
        """Pictures in the tensors of a batch: by their grids of patches where there are some, else by shape."""
        counted = 0
        for pixels, grid, part in (
            ("pixel_values_videos", "video_grid_thw", "video_processor"), ("pixel_values", "image_grid_thw", ""),
        ):  # fmt: skip
            if inputs.get(pixels) is None:
                continue
            if inputs.get(grid) is not None:
                # A patch may stand for several frames; an image is one, repeated.
                depth = getattr(getattr(self.processor, part, None), "temporal_patch_size", 1)
                counted += int(inputs[grid][:, 0].sum()) * (depth or 1)
            else:  # (..., channels, height, width), or patches of each picture
                shape = inputs[pixels].shape
                counted += math.prod(shape[:-3]) if len(shape) > 3 else shape[0]
        return counted

    def _samples(self, inputs: dict[str, Any]) -> float:
        """Samples of sound in the tensors of a batch, at the listener's rate."""
        sound = next((inputs[name] for name in _SOUND if inputs.get(name) is not None), None)
        if sound is None:
            return 0
        mask = next((inputs[name] for name in _SOUND_MASKS if inputs.get(name) is not None), None)
        # Masks are of spectrogram frames where the listener makes such, else of samples.
        steps = mask.sum().item() if mask is not None else math.prod(sound.shape) / (self._bands(sound) or 1)
        return steps * (getattr(self.listener, "hop_length", None) or 1)

    def _bands(self, sound: torch.Tensor) -> int | None:
        bands = getattr(self.listener, "feature_size", None)
        return bands if bands and bands in sound.shape[1:] else None

    # -- text ---------------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    @torch.no_grad()
    def generate(self, inputs: dict[str, Any], **options) -> list[str]:
        """Answers, without the prompt. Greedy unless told otherwise."""
        output = self.model.generate(**inputs, **{"do_sample": False, "num_beams": 1, **options})
        ids = output[0] if isinstance(output, tuple) else getattr(output, "sequences", output)
        said = ids[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]


def fitting(height: int, width: int, side: int) -> tuple[int, int] | None:
    """(height, width) of a picture made no larger than `side` at its longest; None if it is not larger."""
    scale = side / max(height, width)
    return (max(1, round(height * scale)), max(1, round(width * scale))) if scale < 1 else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

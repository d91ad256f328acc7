"""`VideoMemory`: a video that was watched and listened to once, to be asked about many times.

What the encoders and the resampler made of it, as a handful of tensors: window tokens as the language model takes
them, and the pooled keys that the times of a later question attend to. It stands in for the file in
`SAVEnVideoProcessor` and enters the model as `mm_encoder_outputs`. Its sibling `TowerFeatures` stops before the
resampler; what both share, tensors that move and are kept in a file, is `EncodedMedium`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file


class EncodedMedium:
    """Base of the dataclasses that stand in for a medium: their tensors, and the rest of their fields as a header."""

    file_format: ClassVar[str]
    noun: ClassVar[str]
    made_by: ClassVar[str]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ):
        """A copy on `device`; its floating-point tensors in `dtype`."""
        moved = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=non_blocking)
            for name, tensor in self.tensors.items()
        }
        return replace(self, **moved)

    def pin_memory(self):
        """A copy in page-locked memory, as data loaders ask for."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self.tensors.items()})

    def save(self, path: str | os.PathLike) -> None:
        """Write to one safetensors file, at once or not at all."""
        header = {name: value for name, value in vars(self).items() if not isinstance(value, torch.Tensor)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        partial = f"{os.fspath(path)}.partial"
        try:
            save_file(tensors, partial, metadata={"format": self.file_format, "header": json.dumps(header)})
            os.replace(partial, path)
        finally:
            if os.path.exists(partial):
                os.remove(partial)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu"):
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no {cls.noun} at {os.fspath(path)!r}.")
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except Exception as error:
            raise ValueError(f"{os.fspath(path)!r} is not a safetensors file, so not a {cls.noun}.") from error
        if metadata.get("format") != cls.file_format:
            raise ValueError(
                f"{os.fspath(path)!r} has the format {metadata.get('format')!r}, not {cls.file_format!r}: encode the "
                f"video again with `model.{cls.made_by}`."
            )
        return cls(**tensors, **json.loads(metadata["header"]))


@dataclass
class VideoMemory(EncodedMedium):
    """An encoded video. Independent of any question.

    Args:
        window_tokens: `(tokens, D)`, in the language model's space.
        window_times: `(windows, 2)` int64, start and end of each window in microseconds, or `NO_TIME`.
        pooled_states: `(n, d)`, see `PooledKeys`; pooled_times, pooled_modality: `(n,)` int64.
        duration: of the video, in microseconds; 0 if unknown.
        num_frames: frames that were watched.
        audio_seconds: seconds of sound that were heard.
        encoder_hash: fingerprint of the weights that made it; another model refuses it.
        preprocessing_hash: fingerprint of the processor's settings; another processor refuses it.
    """

    window_tokens: torch.Tensor
    window_times: torch.Tensor
    pooled_states: torch.Tensor
    pooled_times: torch.Tensor
    pooled_modality: torch.Tensor
    duration: int
    num_frames: int
    audio_seconds: float
    encoder_hash: str
    preprocessing_hash: str

    file_format = "savenvideo-memory-1"
    noun = "video memory"
    made_by = "encode_video"

    # Remote code loads this class once per module, so others ask for this attribute instead of the class.
    is_video_memory = True

    @property
    def num_tokens(self) -> int:
        """Tokens of the windows; a question's times come on top."""
        return len(self.window_tokens)

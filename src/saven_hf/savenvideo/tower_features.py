"""`TowerFeatures`: what the frozen towers made of one medium, to train the connector from without decoding it again.

A sibling of `VideoMemory` that stops before the connector: TLP and resampler still run on it, and learn. It stands in
for the file in `SAVEnVideoProcessor` and enters the model as `mm_encoder_outputs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .layout import NO_TIME, PATCH_STEP_US, SPEECH_TOKENS_PER_COLUMN
from .memory import EncodedMedium


def is_tower_features(value: Any) -> bool:
    """Whether it is `TowerFeatures`, of this copy of the code or of another."""
    return getattr(value, "is_tower_features", False) is True


def _no_speech() -> torch.Tensor:
    return torch.zeros(0, SPEECH_TOKENS_PER_COLUMN, 0)


def _no_times() -> torch.Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass
class TowerFeatures(EncodedMedium):
    """One medium (a video, an image or a sound) after its towers.

    Args:
        picture: `(frames, patches, vision d)`; frame_times: `(frames,)` int64 microseconds, or `NO_TIME`.
        sound: `(columns, bands, audio d)`; column_times: `(columns,)` int64 microseconds, centres of the columns.
        duration: of the medium, in microseconds; 0 if unknown.
        encoder_hash: fingerprint of the towers that made it; a model with others refuses it.
        preprocessing_hash: fingerprint of what the towers were fed; another processor refuses it. How windows are cut
            and how many tokens they cost is not part of it: that comes after.
        sampling: how frames were chosen, as settings of the video processor.
        speech: `(speech columns, tokens, speech d)` of the speech tower; speech_times: `(speech columns,)` int64
            microseconds, centres of its columns. Empty of a model without a speech tower.
    """

    picture: torch.Tensor
    frame_times: torch.Tensor
    sound: torch.Tensor
    column_times: torch.Tensor
    duration: int
    encoder_hash: str
    preprocessing_hash: str
    sampling: dict = field(default_factory=dict)
    speech: torch.Tensor = field(default_factory=_no_speech)
    speech_times: torch.Tensor = field(default_factory=_no_times)

    file_format = "savenvideo-tower-features-1"
    noun = "set of tower features"
    made_by = "encode_towers"

    # Remote code loads this class once per module, so `is_tower_features` asks for this instead of the class.
    is_tower_features = True

    @property
    def num_frames(self) -> int:
        return len(self.frame_times)

    @property
    def audio_seconds(self) -> float:
        """Seconds of sound that were heard."""
        return len(self.column_times) * PATCH_STEP_US / 1e6

    def without_picture(self) -> TowerFeatures:
        """The medium as if it had no picture: a sound of the same length."""
        return replace(self, picture=self.picture[:0], frame_times=self.frame_times[:0])

    def without_sound(self) -> TowerFeatures:
        """The medium as if it had no sound (not as if it were silent: silence is heard)."""
        return replace(
            self,
            sound=self.sound[:0],
            column_times=self.column_times[:0],
            speech=self.speech[:0],
            speech_times=self.speech_times[:0],
        )

    def shifted(self, offset: int) -> TowerFeatures:
        """The medium on a clock that reads `offset` microseconds more: as if it came that much later in a longer one.

        Frames, sound and the end of the medium move; what is undated stays so.

        Raises:
            ValueError: the medium would be over before its clock starts.
        """
        duration = self.duration + offset if self.duration else 0
        if duration < 0 or (self.duration and not duration):
            raise ValueError(
                f"A medium of {self.duration / 1e6} s cannot move by {offset / 1e6} s: it would end at "
                f"{duration / 1e6} s. Move it less far back."
            )

        def move(times: torch.Tensor) -> torch.Tensor:
            return torch.where(times == NO_TIME, times, times + offset)

        return replace(
            self,
            frame_times=move(self.frame_times),
            column_times=move(self.column_times),
            speech_times=move(self.speech_times),
            duration=duration,
        )

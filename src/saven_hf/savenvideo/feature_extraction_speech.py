"""Sound to the log-mel windows that Whisper's encoder reads: transformers' own features, for tracks of any length."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from transformers import WhisperFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import TensorType

from .feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from .layout import NO_TIME, SPEECH_FRAMES_PER_COLUMN, SPEECH_STEP_US


class SAVEnVideoSpeechFeatureExtractor(WhisperFeatureExtractor):
    r"""
    Turns mono tracks of any length into the log-mel windows of a speech tower, as `SAVEnVideoBeatsFeatureExtractor`
    does for the audio tower.

    A track is cut in windows of `chunk_length` seconds (published: 30), each transformed by itself as
    [`WhisperFeatureExtractor`] does, so that a window's features are those that Whisper was trained on. The last one
    is completed with silence to a whole column of 100 ms, and what is beyond is padding.

    Args:
        whole_windows (`bool`): Count the silence that fills the last window up as sound, as the published
            video-SALMONN does: every track then costs whole windows.
        kwargs: Of `WhisperFeatureExtractor`: `feature_size` (mel bins: 80, of Whisper-large-v3 128), `chunk_length`.
    """

    # `model_input_names` stays Whisper's own: its padding looks for the waveform under that name.
    # What decides about features, and so whether those of another extractor are the same.
    facts = ("feature_size", "sampling_rate", "chunk_length", "n_fft", "hop_length", "dither", "whole_windows")
    output_names = ("speech_features", "speech_features_mask", "speech_times")

    def __init__(self, whole_windows: bool = False, **kwargs):
        super().__init__(**kwargs)
        if self.sampling_rate % 100 or self.hop_length * 100 != self.sampling_rate:
            raise ValueError(
                f"Speech frames must be 10 ms apart, not {self.hop_length} samples at {self.sampling_rate} Hz."
            )
        self.whole_windows = whole_windows

    @classmethod
    def of(cls, config) -> "SAVEnVideoSpeechFeatureExtractor | None":
        """The extractor that the speech tower of a `SAVEnVideoConfig` needs; None if it has none."""
        if config.speech_config is None:
            return None
        return cls(
            feature_size=config.speech_config.num_mel_bins,
            chunk_length=config.speech_config.max_source_positions // 50,
            whole_windows=config.qformer_alignment == "published",
        )

    @property
    def window_us(self) -> int:
        """Length of a window in microseconds."""
        return self.nb_max_frames * 10_000

    def num_frames(self, num_samples: int) -> int:
        """Valid log-mel frames of a track: whole columns, or whole windows, that hold every one of `num_samples`."""
        unit = self.nb_max_frames if self.whole_windows else SPEECH_FRAMES_PER_COLUMN
        return max(1, math.ceil(num_samples / (unit * self.hop_length))) * unit

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | Sequence,
        sampling_rate: int | None = None,
        start_times: int | Sequence[int | None] | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs,
    ) -> BatchFeature:
        r"""
        Args:
            raw_speech, sampling_rate, start_times, return_tensors: as for `SAVEnVideoBeatsFeatureExtractor`.

        Returns:
            A [`BatchFeature`] with
            - **speech_features** `(batch, windows, frames, feature_size)`, float32: log-mel features, 10 ms a frame;
              `frames` is that of a full window if any track has more than one, else that of the longest track.
            - **speech_features_mask** `(batch, windows, frames)`, bool: False for padding.
            - **speech_times** `(batch, windows)`, int64: start of each window in microseconds; `NO_TIME` where it is
              not known and for padding windows.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(
                f"The sound is sampled at {sampling_rate} Hz, but {self.__class__.__name__} takes "
                f"{self.sampling_rate} Hz: resample it first."
            )
        tracks = SAVEnVideoBeatsFeatureExtractor.list_tracks(raw_speech)
        if start_times is None:
            start_times = [0] * len(tracks)
        elif np.ndim(start_times) == 0:
            start_times = [start_times]
        if len(start_times) != len(tracks):
            raise ValueError(f"Got {len(start_times)} start times for {len(tracks)} tracks.")

        frames = [self.num_frames(track.shape[0]) for track in tracks]
        longest = min(max(frames), self.nb_max_frames)
        shape = len(tracks), math.ceil(max(frames) / self.nb_max_frames), longest
        features = torch.full((*shape, self.feature_size), float(self.padding_value))
        mask = torch.zeros(shape, dtype=torch.bool)
        times = torch.full(shape[:2], NO_TIME, dtype=torch.int64)
        for row, (track, start, count) in enumerate(zip(tracks, start_times, frames, strict=True)):
            for window in range(math.ceil(count / self.nb_max_frames)):
                chunk = track[window * self.n_samples : (window + 1) * self.n_samples]
                log_mel = super().__call__(chunk.numpy(), sampling_rate=self.sampling_rate, return_tensors="np")
                log_mel = log_mel["input_features"][0]
                features[row, window] = torch.from_numpy(log_mel.T[:longest])
                mask[row, window, : count - window * self.nb_max_frames] = True
                if start is not None and start != NO_TIME:
                    times[row, window] = int(start) + window * self.window_us

        data = {"speech_features": features, "speech_features_mask": mask, "speech_times": times}
        if return_tensors is None or TensorType(return_tensors) is not TensorType.PYTORCH:
            data = {name: tensor.numpy() for name, tensor in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def column_times(self, num_samples: int, start: int) -> list[int]:
        """Centre times of the columns of a track, from its length alone; windows follow without a gap."""
        columns = self.num_frames(num_samples) // SPEECH_FRAMES_PER_COLUMN if num_samples else 0
        if start == NO_TIME:
            return [NO_TIME] * columns
        return [start + SPEECH_STEP_US * column + SPEECH_STEP_US // 2 for column in range(columns)]


__all__ = ["SAVEnVideoSpeechFeatureExtractor"]

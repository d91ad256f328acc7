"""Sound to the fbank windows that BEATs reads: Kaldi filterbanks in torch, cut so that patches tile the track."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from transformers.audio_utils import window_function
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import TensorType, logging

from .layout import NO_TIME, audio_column_times


logger = logging.get_logger(__name__)

FRAME_LENGTH_SECONDS = 0.025
FRAME_SHIFT_SECONDS = 0.010
FRAME_SHIFT_US = 10_000
PREEMPHASIS = 0.97
MIN_FREQUENCY = 20.0
INT16_SCALE = 2.0**15  # Kaldi reads 16-bit samples as they are; ours lie in [-1, 1].

# Frames transformed at once. It bounds the working memory (about 20 MB) whatever the length of the track, and what
# one step of the FFT touches stays in the processor's cache.
FRAMES_PER_BLOCK = 1024

# Bands next to a loud tone, or in which a noise happens to cancel, hold little but the rounding errors of the float32
# steps before them. To agree there too, everything up to the power spectrum rounds as kaldi-native-fbank does: the
# same operations in the same order, each a torch operation of its own so that none is fused. Do not regroup terms.


@lru_cache(maxsize=8)
def _analysis(num_mel_bins: int, sampling_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Povey window `(frame_length,)` and mel filters `(fft_length / 2, num_mel_bins)`, both float32."""
    frame_length = round(sampling_rate * FRAME_LENGTH_SECONDS)
    fft_length = 2 ** math.ceil(math.log2(frame_length))
    window = window_function(frame_length, "povey", periodic=False)

    # The edges of the triangles are rounded to float32, which moves the smallest weights by a thousandth: the filters
    # of `transformers.audio_utils` are exact and would be that far off.
    def mel(hertz: torch.Tensor) -> torch.Tensor:
        return 1127 * (1 + hertz / 700).double().log().float()

    low, high = mel(torch.tensor([MIN_FREQUENCY, sampling_rate / 2], dtype=torch.float32))
    edges = low + torch.arange(num_mel_bins + 2) * ((high - low) / (num_mel_bins + 1))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(torch.arange(fft_length // 2, dtype=torch.float32) * (sampling_rate / fft_length))[:, None]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return torch.from_numpy(window).float(), filters


def _fft(real: torch.Tensor, imag: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """FFT of `(length, ...)` along the first axis, length a power of two, in the order of kissfft's radix-4 steps.

    kaldi-native-fbank calls kissfft, which in its Linux x86-64 wheels is compiled to add the two products of a complex
    multiplication one by one to the next term (`a + p - q`, not `a + (p - q)`), just where these lines do.
    """
    length = real.shape[0]
    if length == 1:
        return real, imag
    if length == 2:
        return tuple(torch.cat([part[:1] + part[1:], part[:1] - part[1:]]) for part in (real, imag))

    # Four interleaved transforms of a quarter of the length, all at once: (length / 4, 4, ...).
    real, imag = _fft(real.unflatten(0, (-1, 4)), imag.unflatten(0, (-1, 4)))
    phase = torch.outer(torch.arange(4), torch.arange(length // 4)).double() * (-2 * math.pi / length)
    cos, sin = (part.to(real).view(4, -1, *[1] * (real.ndim - 2)) for part in (phase.cos(), phase.sin()))
    r0, r1, r2, r3 = real.unbind(1)
    i0, i1, i2, i3 = imag.unbind(1)
    r1, i1 = r1 * cos[1] - i1 * sin[1], i1 * cos[1] + r1 * sin[1]
    p2, q2, i2 = r2 * cos[2], i2 * sin[2], i2 * cos[2] + r2 * sin[2]
    p3, q3, i3 = r3 * cos[3], i3 * sin[3], i3 * cos[3] + r3 * sin[3]
    # Sums and differences of the even two, 0 and 2, and of the odd two, 1 and 3.
    r02, r0_2, i02, i0_2 = r0 + p2 - q2, r0 + q2 - p2, i0 + i2, i0 - i2
    r13, r1_3, i13 = r1 - q3 + p3, r1 - p3 + q3, i1 + i3
    return (
        torch.cat([r02 + r13, r0_2 + i1 - i3, r02 - r13, r0_2 + i3 - i1]),
        torch.cat([i02 + i13, i0_2 - r1_3, i02 - i13, i0_2 + r1_3]),
    )


def _power_spectrum(frames: torch.Tensor) -> torch.Tensor:
    """Power of real `(fft_length, frames)` in the bins below the Nyquist frequency, `(fft_length / 2, frames)`."""
    # One complex transform of half the length holds that of the even samples and that of the odd ones: its bins k and
    # half - k give the spectrum's bins k and half - k, for k = 1 ... half / 2.
    real, imag = _fft(frames[0::2], frames[1::2])
    half = real.shape[0]
    middle = half // 2
    r, r_mirror = real[1 : middle + 1], real[middle:].flip(0)
    i, i_mirror = imag[1 : middle + 1], imag[middle:].flip(0)
    phase = -math.pi * (torch.arange(1, middle + 1).double() / half + 0.5)[:, None]
    cos, sin = phase.cos().to(real), phase.sin().to(real)
    r_difference, i_sum = r - r_mirror, i + i_mirror
    p, q, turned = r_difference * cos, i_sum * sin, i_sum * cos + r_difference * sin
    lower = (r + r_mirror + p - q).square() + (i - i_mirror + turned).square()
    upper = (r + r_mirror + q - p).square() + (i_mirror - i + turned).square()
    return torch.cat([(real[:1] + imag[:1]).square(), lower[:-1] / 4, upper.flip(0) / 4])


def kaldi_fbank(waveform: torch.Tensor, sampling_rate: int = 16_000, num_mel_bins: int = 128) -> torch.Tensor:
    """Log mel filterbank as kaldi-native-fbank computes it, without dither.

    Frames of 25 ms every 10 ms, only those that fit entirely (`snip_edges`); mean removed, pre-emphasis 0.97, povey
    window, power spectrum, triangular filters in mel space from 20 Hz to the Nyquist frequency, natural logarithm of
    at least the float32 epsilon.

    Args:
        waveform: `(..., samples)`, float, in [-1, 1].
        sampling_rate: in Hz.
        num_mel_bins: number of mel filters.

    Returns:
        `(..., frames, num_mel_bins)`, float32, with `frames = 1 + (samples - 400) // 160` at 16 kHz (none if shorter).
    """
    frame_length = round(sampling_rate * FRAME_LENGTH_SECONDS)
    frame_shift = round(sampling_rate * FRAME_SHIFT_SECONDS)
    window, filters = (tensor.to(waveform.device) for tensor in _analysis(num_mel_bins, sampling_rate))
    fft_length = filters.shape[0] * 2
    num_frames = max(0, 1 + (waveform.shape[-1] - frame_length) // frame_shift)
    shape = (*waveform.shape[:-1], num_frames, num_mel_bins)
    fbank = torch.empty(shape, dtype=torch.float32, device=waveform.device)
    if num_frames == 0:
        return fbank

    epsilon = torch.finfo(torch.float32).eps
    all_frames = waveform.unfold(-1, frame_length, frame_shift)  # a view: (..., frames, frame_length)
    for start in range(0, num_frames, FRAMES_PER_BLOCK):
        block = all_frames[..., start : start + FRAMES_PER_BLOCK, :].float() * INT16_SCALE
        frames = block.reshape(-1, frame_length).T.contiguous()  # (frame_length, frames): steps act on whole rows
        frames = frames - sum(frames) / frame_length  # Python's sum adds sample after sample, torch's does not.
        # Kaldi's pre-emphasis takes the sample before the first to be the first itself.
        previous = torch.cat([frames[:1], frames[:-1]])
        frames = (frames - PREEMPHASIS * previous) * window[:, None]
        power = _power_spectrum(torch.nn.functional.pad(frames, (0, 0, 0, fft_length - frame_length)))
        mel = (power.T @ filters).clamp(min=epsilon).log()
        fbank[..., start : start + FRAMES_PER_BLOCK, :] = mel.view(*block.shape[:-1], num_mel_bins)
    return fbank


class SAVEnVideoBeatsFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Turns mono tracks of any length into the normalised fbank windows of [`SAVEnVideoBeatsModel`].

    A track is cut in windows of `patches_per_window` patch columns (62 x 160 ms = 9.92 s), such that the patches tile
    the whole of it: window `k` starts `k * 9.92 s` after the track, and reads 240 samples beyond its end for its last
    25 ms frame. The last window is completed with at most 160 ms + 240 samples of digital silence, so that no sound
    is lost and a track of a single sample still makes a patch.

    Args:
        feature_size (`int`): Number of mel bins.
        sampling_rate (`int`): Sampling rate of the waveforms in Hz, a multiple of 200 (whole samples in 25 and 10 ms).
        padding_value (`float`): Value of the padding frames, which the mask marks invalid.
        patch_size (`int`): Fbank frames of one patch of the encoder.
        patches_per_window (`int`): Patch columns of a full window.
        mean (`float`): Mean of the published fbanks, subtracted.
        std (`float`): Their standard deviation; BEATs divides by twice this.
        fbank_dtype (`str`): Of the fbanks before they are normalised: "float32", or "bfloat16" as VideoLLaMA 2 was
            trained on. They come out as float32 either way.
    """

    model_input_names = ["input_features", "input_features_mask", "audio_times"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        patch_size: int = 16,
        patches_per_window: int = 62,
        mean: float = 15.41663,
        std: float = 6.55582,
        fbank_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if sampling_rate < 200 or sampling_rate % 200:
            raise ValueError(f"`sampling_rate` must be a positive multiple of 200 Hz, got {sampling_rate}.")
        if patch_size < 1 or patches_per_window < 1:
            raise ValueError(
                f"`patch_size` ({patch_size}) and `patches_per_window` ({patches_per_window}) must be at least 1."
            )
        if fbank_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"`fbank_dtype` must be 'float32' or 'bfloat16', got {fbank_dtype!r}.")
        self.fbank_dtype = fbank_dtype
        self.patch_size = patch_size
        self.patches_per_window = patches_per_window
        self.mean = mean
        self.std = std

    @property
    def frames_per_window(self) -> int:
        """Fbank frames of a full window (992)."""
        return self.patches_per_window * self.patch_size

    def num_patches(self, num_samples: int) -> int:
        """Patch columns that a track of `num_samples` makes: as many as hold every sample, at least one."""
        shift, overhang = self._patch_samples()
        return max(1, math.ceil((num_samples - overhang) / shift))

    def num_windows(self, num_samples: int) -> int:
        """Windows that a track of `num_samples` makes."""
        return math.ceil(self.num_patches(num_samples) / self.patches_per_window)

    def column_times(self, num_samples: int, start: int) -> list[int]:
        """Centre times of the patch columns of a track, from its length alone; microseconds.

        Args:
            start: time of its first sample, or `NO_TIME`.
        """
        if not num_samples:
            return []
        patches, per_window = self.num_patches(num_samples), self.patches_per_window
        windows = range(math.ceil(patches / per_window))
        frames = [min(per_window, patches - window * per_window) * self.patch_size for window in windows]
        step = self.frames_per_window * FRAME_SHIFT_US
        starts = [start if start == NO_TIME else start + window * step for window in windows]
        return audio_column_times(starts, frames)

    def _patch_samples(self) -> tuple[int, int]:
        """Samples from one patch to the next (2560), and how far its last frame reaches into the next (240)."""
        frame_length = round(self.sampling_rate * FRAME_LENGTH_SECONDS)
        frame_shift = round(self.sampling_rate * FRAME_SHIFT_SECONDS)
        return self.patch_size * frame_shift, frame_length - frame_shift

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
            raw_speech: One mono track in [-1, 1] as a 1-D array, tensor or list of floats, or a list of such tracks.
            sampling_rate (`int`, *optional*): Rate of the tracks in Hz; anything but the extractor's own is refused.
            start_times (`list[int | None]`, *optional*): Time of the first sample of each track in microseconds,
                None where it is not known. By default every track starts at 0.
            return_tensors (`str`, *optional*): `"pt"` or `"np"` (default).
            kwargs: transformers' padding and truncation options are accepted and change nothing: windows are always
                padded to the same length, and no sound is cut off.

        Returns:
            A [`BatchFeature`] with
            - **input_features** `(batch, windows, frames, feature_size)`, float32: normalised fbank. `frames` is that
              of a full window if any track has more than one, else that of the longest track.
            - **input_features_mask** `(batch, windows, frames)`, bool: False for padding.
            - **audio_times** `(batch, windows)`, int64: start of each window in microseconds; `NO_TIME` for the
              windows of a track whose start is not known and for padding windows.
        """
        if sampling_rate is None:
            logger.warning_once(
                f"No `sampling_rate` was passed to {self.__class__.__name__}: the sound is taken to be sampled at "
                f"{self.sampling_rate} Hz."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"The sound is sampled at {sampling_rate} Hz, but {self.__class__.__name__} takes "
                f"{self.sampling_rate} Hz: resample it first."
            )
        tracks = self.list_tracks(raw_speech)
        if start_times is None:
            start_times = [0] * len(tracks)
        elif np.ndim(start_times) == 0:
            start_times = [start_times]
        if len(start_times) != len(tracks):
            raise ValueError(f"Got {len(start_times)} start times for {len(tracks)} tracks.")

        patches = [self.num_patches(track.shape[0]) for track in tracks]
        num_frames = min(max(patches), self.patches_per_window) * self.patch_size
        num_windows = math.ceil(max(patches) / self.patches_per_window)
        features = torch.full((len(tracks), num_windows, num_frames, self.feature_size), float(self.padding_value))
        mask = torch.zeros((len(tracks), num_windows, num_frames), dtype=torch.bool)
        times = torch.full((len(tracks), num_windows), NO_TIME, dtype=torch.int64)

        shift, overhang = self._patch_samples()
        for row, (track, start, count) in enumerate(zip(tracks, start_times, patches, strict=True)):
            track = torch.nn.functional.pad(track, (0, count * shift + overhang - track.shape[0]))
            fbank = kaldi_fbank(track, self.sampling_rate, self.feature_size)
            fbank = fbank.to(getattr(torch, self.fbank_dtype)).float().sub_(self.mean).div_(2 * self.std)
            # A frame depends on its own samples alone, so the windows' frames are the track's frames in a row.
            features[row].view(-1, self.feature_size)[: fbank.shape[0]] = fbank
            mask[row].view(-1)[: fbank.shape[0]] = True
            if start is not None and start != NO_TIME:
                windows = math.ceil(count / self.patches_per_window)
                times[row, :windows] = int(start) + torch.arange(windows) * (self.frames_per_window * FRAME_SHIFT_US)

        data = {"input_features": features, "input_features_mask": mask, "audio_times": times}
        if return_tensors is None or TensorType(return_tensors) is not TensorType.PYTORCH:
            data = {name: tensor.numpy() for name, tensor in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    @classmethod
    def list_tracks(cls, raw_speech) -> list[torch.Tensor]:
        """The tracks of a batch as float32 `(samples,)`, or a ValueError that says what is wrong with one."""
        return [cls._check_track(track, index) for index, track in enumerate(cls._split_batch(raw_speech))]

    @staticmethod
    def _split_batch(raw_speech) -> list:
        """The tracks of a batch; one track that is not in a list makes a batch of one."""
        if isinstance(raw_speech, (np.ndarray, torch.Tensor)):
            return [raw_speech]
        if not isinstance(raw_speech, (list, tuple)):
            raise ValueError(
                f"Sound must be an array, a tensor or a list of floats, or a list of these, got "
                f"{type(raw_speech).__name__}. Files are read by the processor."
            )
        if len(raw_speech) == 0:
            raise ValueError("The sound is empty: got a list without tracks or samples.")
        is_batch = isinstance(raw_speech[0], (np.ndarray, torch.Tensor, list, tuple)) and np.ndim(raw_speech[0]) > 0
        return list(raw_speech) if is_batch else [raw_speech]

    @staticmethod
    def _check_track(track, index: int) -> torch.Tensor:
        """A track as float32 `(samples,)` on the CPU, or a ValueError that says what is wrong with it."""
        name = f"Track {index} of the sound"
        if isinstance(track, torch.Tensor):
            samples = track.detach().cpu()
        else:
            is_array = isinstance(track, np.ndarray)
            try:
                # A list may hold whole numbers (silence); an array of integers is most likely PCM. torch wants
                # memory it may write to.
                samples = torch.from_numpy(np.require(track, None if is_array else np.float32, ["C", "W"]))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} holds something other than numbers: {error}.") from None
        if samples.ndim != 1:
            raise ValueError(
                f"{name} has the shape {tuple(samples.shape)}, but one mono track is (samples,): average the "
                "channels, or pass several tracks as a list."
            )
        if samples.shape[0] == 0:
            raise ValueError(f"{name} is empty: leave sound out where there is none.")
        if not samples.is_floating_point():
            raise ValueError(
                f"{name} holds {samples.dtype} samples, but they must be floats in [-1, 1]: divide 16-bit samples by "
                "32768."
            )
        samples = samples.float()
        if not torch.isfinite(samples).all():
            raise ValueError(f"{name} holds NaN or infinite samples.")
        return samples


__all__ = ["SAVEnVideoBeatsFeatureExtractor", "kaldi_fbank"]

"""The sound track of a file as mono float32, the mean of its channels, read piece by piece at exact sample positions.

Sample n of a track at rate r is the sound at `start + n / r`. Positions are counted from the first sample, with the
timestamps of the container as the authority: where sound is missing inside a track the samples are zero and the gap
is recorded, so that everything after it keeps its time.
"""

import logging

import numpy as np

from .media_errors import CorruptMediaError, decoder_errors
from .media_sniff import import_av, open_container, read_only
from .media_video import is_end, microsecond_scale


logger = logging.getLogger(__name__)

# Timestamps that disagree with the count of samples by less than this are rounding (Matroska rounds to 1 ms).
_RESYNC_US = 20_000
# What the packets state and what comes out of the decoder may differ at the end by about one packet of padding.
_TAIL_US = 250_000
# Samples already read that are kept, so that overlapping ranges (windows of sound) need no second pass.
_HISTORY_SECONDS = 20
# Samples that leave the resampler at once: large enough that Python costs little per hour of sound.
_CHUNK_SAMPLES = 4096


class AudioReader:
    """Decodes and resamples one sound track from its beginning on; successive ranges continue where the last ended.

    A range before the kept history starts again from the beginning, which keeps every sample independent of how it
    was asked for: reading in pieces and reading at once give the same samples bit for bit.

    Attributes:
        start: time of the first sample, microseconds on the container's clock.
        end: time at which the last sample ends.
        gaps: (start, end) of the stretches without sound inside the track that have been met so far.
    """

    def __init__(self, source, file_format, limits, stream_index: int):
        self._arguments = (source, file_format, limits)
        self._label = source.label
        self._stream_index = stream_index
        self._container = None
        self._rate = self._chunks = None
        self.gaps: list[tuple[int, int]] = []
        self.packets = 0
        self.end = 0
        first = next(self._frames(), None)
        self.is_empty = first is None
        self._scale = (1, 1) if first is None else microsecond_scale(first.time_base)
        self.start = 0 if first is None or first.pts is None else self._time(first.pts)  # no timestamps: starts at 0

    def close(self):
        if self._chunks is not None:
            # The resampler has threads. Left to the garbage collector it could end in a forked process, which would
            # wait for them for ever.
            self._chunks.close()
            self._chunks = self._rate = None
        self._close_container()

    def _close_container(self):
        if self._container is not None:
            self._container.close()
            self._container = None

    def num_samples(self, rate: int) -> int:
        """Samples of the whole track at `rate`."""
        return max(0, ((self.end - self.start) * rate + 500_000) // 1_000_000)

    def read(self, first: int, last: int, rate: int) -> np.ndarray:
        """Samples [first, last) at `rate`, clipped to the track: (samples,) float32."""
        total = self.num_samples(rate)
        first, last = min(max(first, 0), total), min(max(last, 0), total)
        out = np.zeros(max(last - first, 0), dtype=np.float32)
        if not out.size:
            return out
        if rate != self._rate or first < self._history_start:
            self._restart(rate)
        for start, samples in self._history:
            _copy_overlap(out, first, start, samples)
        while self._position < last:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            start, samples = self._position, chunk[: total - self._position]
            self._position += len(samples)
            _copy_overlap(out, first, start, samples)
            self._history.append((start, samples))
            while len(self._history) > 1 and self._position - self._history[1][0] > _HISTORY_SECONDS * rate:
                self._history.pop(0)
            self._history_start = self._history[0][0]
        return out

    def _restart(self, rate: int):
        self._rate, self._position, self._history, self._history_start = rate, 0, [], 0
        self._chunks = self._resampled(rate)
        self.gaps = []

    def _time(self, pts: int) -> int:
        numerator, denominator = self._scale
        return (2 * pts * numerator + denominator) // (2 * denominator)

    def _frames(self):
        """Decoded audio frames from the beginning. A few undecodable packets leave a gap; more are an error."""
        self._close_container()
        self._container = open_container(*self._arguments)
        stream = self._container.streams[self._stream_index]
        read_only(self._container, stream)
        stream.codec_context.thread_count = 1
        bad = 0
        with decoder_errors(self._label, "reading the sound"):
            for packet in self._container.demux(stream):
                if not packet.size and not is_end(packet):
                    continue
                try:
                    frames = stream.codec_context.decode(None if is_end(packet) else packet)
                except EOFError:
                    frames = []
                except Exception as cause:
                    bad += 1
                    logger.debug("%s: an audio packet was not decoded", self._label, exc_info=cause)
                    # a recording cut out of a running broadcast begins with a few such packets
                    if bad > max(3, self.packets // 100):
                        raise CorruptMediaError(
                            f"{self._label}: {bad} of the sound's packets cannot be decoded; the file is damaged. "
                            f"Fetch it again, or read it without sound (audio_stream='none')."
                        ) from None
                    continue
                yield from frames

    def _resampled(self, rate: int):
        """Contiguous chunks of mono float32 samples at `rate`, from sample 0 to the end of the track."""
        av = import_av()
        position, expected = 0, self.start
        resampler, base, produced = None, 0, 0

        def collect(frames):
            nonlocal position, produced
            for frame in frames:
                # FFmpeg's own mix to mono is 3 dB louder where two channels say the same.
                samples = frame.to_ndarray().mean(0)
                if not np.isfinite(samples).all():
                    raise CorruptMediaError(
                        f"{self._label}: the sound holds NaN or infinite samples near "
                        f"{(self.start + position * 1_000_000 // rate) / 1e6:.2f} s; export it again."
                    )
                begin = base + produced
                produced += len(samples)
                if begin > position:
                    yield np.zeros(begin - position, dtype=np.float32)
                    position = begin
                if begin + len(samples) > position:
                    yield samples[position - begin :]
                    position = begin + len(samples)

        for frame in self._frames():
            pts, samples_in, rate_in = frame.pts, frame.samples, frame.sample_rate
            time = expected if pts is None else self._time(pts)
            jump = abs(time - expected) > _RESYNC_US
            fresh = resampler is None or jump
            if not fresh:
                try:
                    resampled = resampler.resample(frame)
                except ValueError:  # the track changed its rate or channels on the way
                    fresh, time = True, expected
            if fresh:
                if resampler is not None:
                    yield from collect(resampler.resample(None))
                if jump:
                    logger.info("%s: the sound jumps from %.3f s to %.3f s", self._label, expected / 1e6, time / 1e6)
                    self.gaps.append((min(expected, time), max(expected, time)))
                base, produced = ((time - self.start) * rate + 500_000) // 1_000_000, 0
                segment_start, segment_samples = time, 0
                resampler = av.AudioResampler("fltp", frame.layout, rate, frame_size=_CHUNK_SAMPLES)
                resampled = resampler.resample(frame)
            segment_samples += samples_in
            expected = segment_start + segment_samples * 1_000_000 // rate_in
            if resampled:
                yield from collect(resampled)
        if resampler is not None:
            yield from collect(resampler.resample(None))
        total = self.num_samples(rate)
        lacking = (total - position) * 1_000_000 // rate
        if lacking > _TAIL_US:
            raise CorruptMediaError(
                f"{self._label}: the sound ends {lacking / 1e6:.2f} s early, after {position / rate:.2f} s of "
                f"{total / rate:.2f} s; the file is damaged or cut short. Fetch it again."
            )
        if total > position:
            yield np.zeros(total - position, dtype=np.float32)


def _copy_overlap(out: np.ndarray, first: int, start: int, samples: np.ndarray):
    """Copies the part of `samples` (at positions from `start`) that `out` (at positions from `first`) covers."""
    low, high = max(first, start), min(first + len(out), start + len(samples))
    if low < high:
        out[low - first : high - first] = samples[low - start : high - start]

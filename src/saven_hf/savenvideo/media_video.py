"""The picture track of a file: the true time of every frame, which of them to take, and their pixels.

The container is scanned once without decoding (about half a second per hour of video); from then on every frame is
known by its presentation timestamp (PTS), never by index / average fps. Times here are microseconds on the
container's own clock; `Media` shifts them to the shared clock.
"""

import itertools
import logging
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .media_errors import CorruptMediaError, NoFramesError, decoder_errors
from .media_sniff import import_av, open_container, read_only


logger = logging.getLogger(__name__)

SAMPLINGS = ("uniform", "fps", "keyframe", "query")
# Our decision: an instant named in a question ("at 13.5 s") is looked at from one second before to one second after.
INSTANT_MARGIN_US = 1_000_000
# Codecs whose decoder skips exactly the frames that no other frame refers to. (In HEVC "non-reference" is per temporal
# layer, so that skipping is not exact there.)
_EXACT_SKIP = ("h264", "mpeg2video")
_BACKWARD_JUMP_US = 1_000_000
_NO_PTS = -(2**63)
# A key frame this few packets ahead is reached by reading on; seeking there would cost more.
_NEAR_PACKETS = 16


def to_microseconds(timestamps, time_base: Fraction):
    """Timestamps in units of `time_base` (int or int64 array) as rounded integer microseconds."""
    numerator, denominator = microsecond_scale(time_base)
    return (2 * timestamps * numerator + denominator) // (2 * denominator)


def microsecond_scale(time_base: Fraction) -> tuple[int, int]:
    """Microseconds per unit of `time_base` as (numerator, denominator), reduced so that int64 suffices."""
    scale = Fraction(time_base) * 1_000_000
    return scale.numerator, scale.denominator


# ---------------------------------------------------------------------------------------------------------------------
# Which frames


@dataclass
class PacketLog:
    """The packets of one stream in file (decode) order, as plain lists while they are being read."""

    pts: list
    dts: list
    key: list
    shown: list
    last_duration: int = 0

    @classmethod
    def empty(cls):
        return cls([], [], [], [])

    def drop_last(self):
        for values in (self.pts, self.dts, self.key, self.shown):
            values.pop()


class FrameIndex:
    """Every frame of a video stream, known without decoding it.

    Attributes:
        times: (frames,) int64 presentation times in microseconds, ascending and unique.
        keys: (key frames,) indices into `times` of the frames that can be decoded on their own.
        start: the time at which the track begins; the first frame's, unless an edit list cuts into a frame.
        end: the time at which the last frame stops being shown.
    """

    def __init__(self, packets: PacketLog, time_base: Fraction, label: str):
        missing = np.array([pts is None for pts in packets.pts], dtype=bool)
        self.timed_by_dts = bool(missing.size) and bool(missing.all())
        if self.timed_by_dts:
            # a file without any PTS: frames are shown in the order of the decode times
            packets.pts = sorted(0 if dts is None else dts for dts in packets.dts)
            missing[:] = False
        # the scan order of packets is the position by which the reader finds them again
        pts = np.array([0 if value is None else value for value in packets.pts], dtype=np.int64)
        self.packet_pts = np.where(missing, _NO_PTS, pts)
        self.packet_dts = packets.dts
        key = np.array(packets.key, dtype=bool)
        if key.size and not key.any():
            key[0] = True
        self.key_positions = np.flatnonzero(key)
        shown = np.array(packets.shown, dtype=bool)
        if self.key_positions.size:
            first = self.key_positions[0]
            shown[:first] = False  # a file cut in the middle of a group of pictures: these cannot be decoded
            shown &= self.packet_pts >= self.packet_pts[first]
        if (shown & missing).any():  # (the demuxer gives none to Matroska blocks before zero)
            logger.warning("%s: %d frames without a timestamp are left out", label, (shown & missing).sum())
        positions = np.flatnonzero(shown & ~missing)
        if not positions.size:
            raise NoFramesError(f"{label}: its video stream holds no frame that can be decoded; fetch it again.")
        self._refuse_backward_jump(packets.dts, time_base, label)
        self.pts, unique = np.unique(self.packet_pts[positions], return_index=True)
        self.positions = positions[unique]
        self.times = to_microseconds(self.pts, time_base)
        self.start = int(self.times[0])
        self.keys = np.flatnonzero(key[self.positions])
        step = int(np.median(np.diff(self.times))) if len(self.times) > 1 else 0
        last = int(to_microseconds(packets.last_duration, time_base))
        self.end = int(self.times[-1]) + (last if 0 < last <= max(10 * step, 1_000_000) else step or 40_000)

    @staticmethod
    def _refuse_backward_jump(packet_dts, time_base, label):
        """Decode times only grow; where they jump back, several recordings with clocks of their own were joined."""
        times = to_microseconds(np.array([dts for dts in packet_dts if dts is not None], dtype=np.int64), time_base)
        back = np.maximum.accumulate(times) - times if times.size else times
        if back.max(initial=0) > _BACKWARD_JUMP_US:
            at = times[int(back.argmax())] / 1e6
            raise CorruptMediaError(
                f"{label}: its timestamps jump back by {back.max() / 1e6:.2f} s to {at:.2f} s, so times in it are "
                f"ambiguous. Repair it with `ffmpeg -i {label} -c copy repaired.mkv`."
            )

    def __len__(self):
        return len(self.times)

    def between(self, start: int, end: int) -> "FramePart":
        """The frames that begin in [start, end); the one that is on the screen meanwhile where none does."""
        first, last = (int(np.searchsorted(self.times, time)) for time in (start, end))
        if first == last and 0 < first and start < self.end:
            first -= 1
        keys = self.keys[(self.keys >= first) & (self.keys < last)]
        return FramePart(self.times[first:last], keys - first, min(end, self.end))

    def delay(self, microseconds: int):
        """Show every frame that much later than its packet says; the track still begins where it began."""
        self.times = self.times + microseconds
        self.end += microseconds

    def start_position(self, frame: int) -> int:
        """Position of the packet from which decoding must begin to obtain frame `frame` exactly.

        The last key frame before it in the file whose own time is not later: pictures that follow a key frame in the
        file and precede it on the screen (an open group) need the group before.
        """
        position, pts = self.positions[frame], self.pts[frame]
        keys = self.key_positions[: np.searchsorted(self.key_positions, position, side="right")]
        usable = np.flatnonzero(self.packet_pts[keys] <= pts)
        return int(keys[usable[-1]]) if usable.size else 0


@dataclass
class FramePart:
    """A stretch of a `FrameIndex`; times, keys, end: as its own."""

    times: np.ndarray
    keys: np.ndarray
    end: int

    def __len__(self):
        return len(self.times)


def choose_frames(
    index: FrameIndex | FramePart,
    sampling: str = "uniform",
    num_frames: int = 16,
    fps: float | None = None,
    max_frames: int | None = None,
    spans: list[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Indices (ascending, unique) of the frames that a sampling takes; `spans` on the clock of `index.times`.

    `uniform` takes the frame shown at the middle of each of `num_frames` equal bins of time (paper 4.1.1), `fps` one
    frame per 1 / fps seconds, `keyframe` the key frame nearest to each uniform (or fps) target, `query` half of its
    frames inside `spans`. Where fps asks for more than `max_frames`, the frames are spread over the whole video.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}.")
    if num_frames < 1 or (max_frames is not None and max_frames < 1):
        raise ValueError(f"num_frames ({num_frames}) and max_frames ({max_frames}) must be at least 1.")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps is {fps}; it must be above 0.")
    if sampling == "fps" and fps is None:
        raise ValueError("sampling='fps' needs fps, the number of frames per second to take.")
    start, end = int(index.times[0]), index.end
    limit = max_frames or 2**62
    by_fps = sampling == "fps" or (sampling == "keyframe" and fps is not None)
    if by_fps and max(1, round((end - start) * fps / 1e6)) <= limit:
        count = max(1, round((end - start) * fps / 1e6))
        # middles of bins of 1 / fps seconds; the frame shown then, once (a still picture is not repeated)
        targets = start + ((np.arange(count) + 0.5) * (1e6 / fps)).astype(np.int64)
        targets = np.minimum(targets, end - 1)
    else:
        count = limit if by_fps else min(num_frames, limit)
        targets = _bin_middles([(start, end)], count)
    if sampling == "keyframe":
        keys = index.keys if index.keys.size else np.array([0])
        return keys[_distinct(_nearest(index.times[keys], targets), len(keys))]
    if by_fps:
        return np.unique(_shown_at(index.times, targets))
    inside = np.empty(0, dtype=np.int64)
    if sampling == "query":
        wanted = _merge_spans(spans or (), start, end)
        if wanted and count > 1:
            inside = np.unique(_shown_at(index.times, _bin_middles(wanted, count // 2)))
            targets = _bin_middles([(start, end)], count - len(inside))
    chosen = _distinct(_shown_at(index.times, targets), len(index))
    if inside.size:
        chosen = np.union1d(inside, chosen)
        unused = np.setdiff1d(np.arange(len(index)), chosen)
        lacking = min(count - len(chosen), len(unused))
        if lacking > 0:  # frames chosen by both halves leave room for others
            chosen = np.union1d(chosen, unused[(2 * np.arange(lacking) + 1) * len(unused) // (2 * lacking)])
    return chosen


def _bin_middles(spans, count: int) -> np.ndarray:
    """Middles of `count` equal bins of the time that disjoint ascending spans cover together."""
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    lengths = np.array([end - start for start, end in spans], dtype=np.int64)
    ends = np.cumsum(lengths)
    middles = np.array(
        [(2 * i + 1) * int(ends[-1]) // (2 * count) for i in range(min(count, int(ends[-1])))], dtype=np.int64
    )
    span = np.searchsorted(ends, middles, side="right")
    return starts[span] + middles - (ends - lengths)[span]


def _merge_spans(spans, start: int, end: int) -> list[tuple[int, int]]:
    """Spans clipped to the video, instants widened, overlaps merged; those outside of the video are dropped."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((min(span), max(span)) for span in spans):
        if first == last:
            first, last = first - INSTANT_MARGIN_US, last + INSTANT_MARGIN_US
        first, last = max(first, start), min(last, end)
        if first >= last:
            continue
        if merged and first <= merged[-1][1]:
            first, last = merged[-1][0], max(last, merged.pop()[1])
        merged.append((first, last))
    return merged


def _shown_at(times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(times, targets, side="right") - 1, 0)


def _nearest(times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    before = _shown_at(times, targets)
    after = np.minimum(before + 1, len(times) - 1)
    return np.where(np.abs(times[after] - targets) < np.abs(targets - times[before]), after, before)


def _distinct(indices: np.ndarray, available: int) -> np.ndarray:
    """Ascending indices moved by as little as it takes to make them all different; all there are if too few."""
    if len(indices) >= available:
        return np.arange(available)
    rank = np.arange(len(indices))
    return np.minimum(np.maximum.accumulate(indices - rank), available - len(indices)) + rank


# ---------------------------------------------------------------------------------------------------------------------
# Their pixels


class FrameReader:
    """Decodes chosen frames of one video stream, in any order; cheapest in ascending order, across calls too.

    Only what is needed is decoded: from the key frame before a wanted frame up to it, without the frames in between
    that nothing refers to. Frames are scaled one by one as they leave the decoder.
    """

    def __init__(self, source, file_format, limits, stream_index: int, num_threads: int = 1):
        self._arguments = (source, file_format, limits)
        self._stream_index = stream_index
        self._num_threads = num_threads
        self.index: FrameIndex | None = None
        self._container = None
        self._reformatter = None

    def close(self):
        if self._container is not None:
            self._container.close()
            self._container = None

    def frames(self, wanted: list[int]):
        """Yields the decoded PyAV frame of each of the ascending frame indices `wanted`."""
        starts = [self.index.start_position(frame) for frame in wanted]
        wanted_pts = {int(self.index.pts[frame]) for frame in wanted}
        for i, frame in enumerate(wanted):
            # before a jump to another group the decoder is drained rather than fed on
            leaving = i + 1 < len(wanted) and starts[i + 1] > self.index.positions[frame] + _NEAR_PACKETS
            yield self._frame(frame, starts[i], wanted_pts, leaving)

    def _frame(self, frame: int, start: int, wanted_pts: set, drain: bool):
        label = self._arguments[0].label
        position, pts = int(self.index.positions[frame]), int(self.index.pts[frame])
        # (without PTS the packet that holds a frame is known only roughly, so that draining after it could miss it)
        found = self._decode(position, pts, start, wanted_pts, drain and not self.index.timed_by_dts)
        if found is None:
            # A packet without a picture of its own (VP8 "invisible" frames, say): the next picture stands for it.
            # After real damage the distance is far greater.
            later = [candidate for candidate in self._ready if candidate >= pts]
            neighbours = self.index.pts[frame + 1 : frame + 3]
            if later and neighbours.size and min(later) <= neighbours[-1] and not self._errors:
                found = self._ready[min(later)]
        if found is None:
            at = (self.index.times[frame]) / 1e6
            raise CorruptMediaError(
                f"{label}: the frame at {at:.3f} s (container time) cannot be decoded; the file is damaged there. "
                f"Fetch it again, or rebuild it with `ffmpeg -i {label} repaired.mp4`."
            )
        return found

    def _decode(self, position: int, pts: int, start: int, wanted_pts: set, drain: bool):
        if self._container is not None:
            self._ready = {key: value for key, value in self._ready.items() if key >= pts}
            if pts in self._ready:
                return self._ready[pts]
        stale = (
            position <= self._fed and (position in self._skipped or pts <= self._shown) if self._container else True
        )
        if stale or self._drained or start > self._fed + _NEAR_PACKETS:
            self._seek(start)
        label, context, last_wanted = self._arguments[0].label, self._stream.codec_context, max(wanted_pts)
        while pts not in self._ready and self._shown <= pts and not self._drained:
            if drain and self._fed >= position:
                decoded = self._guarded_decode(None)
                self._drained = True
            else:
                with decoder_errors(label, "reading a video packet"):
                    packet = next(self._packets, None)
                if packet is None or is_end(packet):
                    decoded = self._guarded_decode(None)
                    self._drained = True
                elif not packet.size:
                    self._fed += 1
                    continue
                else:
                    self._fed += 1
                    if self._can_skip:
                        # (packets beyond the last wanted frame are a few, and a following call may want theirs)
                        needed = packet.pts is None or packet.pts in wanted_pts or packet.pts > last_wanted
                        context.skip_frame = "DEFAULT" if needed else "NONREF"
                        if not needed:
                            self._skipped.add(self._fed)
                    decoded = self._guarded_decode(packet)
            for picture in decoded:
                shown = self._picture_pts(picture)
                self._shown = max(self._shown, shown)
                if shown >= pts:
                    self._ready[shown] = picture
        return self._ready.get(pts)

    def _guarded_decode(self, packet):
        try:
            return self._stream.codec_context.decode(packet)
        except EOFError:
            return []
        except Exception as cause:
            # one bad packet need not touch the wanted frame; if it does, the frame is missed and reported
            self._errors += 1
            logger.debug("%s: a video packet was not decoded", self._arguments[0].label, exc_info=cause)
            return []

    def _picture_pts(self, picture) -> int:
        value = picture.pts if picture.pts is not None else picture.dts
        if value is None:
            return _NO_PTS
        if self.index.timed_by_dts:  # nearest, since decode times are shifted against the order of showing
            at = int(np.searchsorted(self.index.pts, value))
            near = self.index.pts[max(at - 1, 0) : at + 1]
            return int(near[np.abs(near - value).argmin()])
        return int(value)

    def _open(self):
        self.close()
        self._container = open_container(*self._arguments)
        self._stream = self._container.streams[self._stream_index]
        self._stream.codec_context.thread_count = self._num_threads
        read_only(self._container, self._stream)
        self._can_skip = self._stream.codec_context.name in _EXACT_SKIP and not self.index.timed_by_dts

    def _seek(self, start: int):
        """Brings the demuxer to the packet at position `start` and feeds it to nothing yet."""
        if self._container is None:
            self._open()
        keys = self.index.key_positions
        at = int(np.searchsorted(keys, start))
        # demuxers land where they please: try the key frame itself, then ever earlier ones, then the file's beginning
        landings = [int(keys[i]) for i in (at, at - 1, at - 4) if 0 <= i < len(keys)] if start else []
        for landing in [*landings, None]:
            if self._land(landing, start):
                return
        label = self._arguments[0].label
        raise CorruptMediaError(
            f"{label}: a part of the video cannot be found again; repair the file with "
            f"`ffmpeg -i {label} -c copy repaired.mkv`."
        )

    def _land(self, landing: int | None, start: int) -> bool:
        self._ready, self._skipped, self._drained, self._errors = {}, set(), False, 0
        self._shown, self._fed = _NO_PTS, start - 1
        label, target_pts, target_dts = (
            self._arguments[0].label,
            self.index.packet_pts[start],
            self.index.packet_dts[start],
        )
        if landing is None:
            self._open()
        else:
            timestamp = self.index.packet_dts[landing]
            if timestamp is None or self._arguments[1].demuxer == "matroska":  # whose index holds presentation times
                timestamp = int(self.index.packet_pts[landing])
            try:
                self._container.seek(timestamp, stream=self._stream)
            except Exception as cause:  # not seekable there
                logger.debug("%s: seeking failed", label, exc_info=cause)
                return False
        self._packets = self._container.demux(self._stream)
        with decoder_errors(label, "reading a video packet"):
            if landing is None:  # from the beginning positions can be counted
                return sum(1 for _ in itertools.islice(self._packets, start)) == start
            for packet in self._packets:
                if is_end(packet):
                    return False
                if (packet.pts == target_pts or self.index.timed_by_dts) and packet.dts == target_dts:
                    self._packets = itertools.chain([packet], self._packets)
                    return True
                if packet.dts is not None and target_dts is not None and packet.dts > target_dts:
                    return False
        return False

    def to_array(self, picture, height: int, width: int, resample: str) -> np.ndarray:
        """A decoded frame as (height, width, 3) uint8 RGB, scaled and turned upright."""
        turns = quarter_turns(picture)
        if turns % 2:
            height, width = width, height
        if self._reformatter is None:
            self._reformatter = import_av().video.reformatter.VideoReformatter()
        scaled = self._reformatter.reformat(picture, width, height, "rgb24", interpolation=resample.upper())
        return np.rot90(scaled.to_ndarray(), turns)


def quarter_turns(picture) -> int:
    """Counter-clockwise quarter turns that put a decoded frame upright (cameras store how they were held)."""
    return round((getattr(picture, "rotation", 0) or 0) / 90) % 4


def is_end(packet) -> bool:
    """PyAV ends every stream with an empty packet that makes the decoder give up what it still holds."""
    return not packet.size and packet.pts is None and packet.dts is None

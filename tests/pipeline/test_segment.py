"""Stage 1: boundaries, merging, real times."""

import os

import numpy as np
import pytest
import torch

from saven_hf.pipeline.segment import (
    ChangeDetector,
    FrameScores,
    colour_histograms,
    find_boundaries,
    merge_boundaries,
    segment,
    split_long,
)
from saven_hf.savenvideo.media import open_media
from saven_hf.world import sample_scene


def test_cuts_of_a_clip_are_found_to_the_frame(clip_path):
    with open_media(clip_path) as media:
        found = ChangeDetector().score(media)
        row = segment({}, media)
    assert [int(found.times[at]) for at in find_boundaries(found)] == [3_000_000, 6_000_000, 9_000_000]
    spans = [(one["start"], one["end"]) for one in row["segments"]]
    assert spans == [(0.0, 3.0), (3.0, 6.0), (6.0, 9.0), (9.0, pytest.approx(12.0, abs=0.03))]
    # Text names first and last frame: the next one begins one frame later.
    assert [(one["first_frame"], one["last_frame"]) for one in row["segments"][:2]] == [(0.0, 2.96), (3.0, 5.96)]
    assert sum(one["frames"] for one in row["segments"]) == 300


def test_scores_do_not_depend_on_the_pieces_that_frames_come_in(clip_path, monkeypatch):
    with open_media(clip_path) as media:
        whole = ChangeDetector().score(media).scores
        monkeypatch.setattr("saven_hf.pipeline.segment._CHUNK", 7)
        pieces = ChangeDetector().score(media).scores
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


class Frames:
    """In place of a video: frames of one grey each, and their times in milliseconds."""

    def __init__(self, levels, times):
        self.levels, self.times = torch.tensor(levels, dtype=torch.uint8), [1000 * time for time in times]

    def frame_times(self):
        return self.times

    def frames_at(self, times, size, resample):
        at = [self.times.index(time) for time in times]
        return self.levels[at, None, None, None].expand(-1, 3, *size).clone(), times


@pytest.mark.parametrize("change", [126, 127, 128, 129])
def test_changes_of_slow_video_are_found_wherever_pieces_end(change):
    levels = [50] * change + [200] * (200 - change)
    assert find_boundaries(ChangeDetector().score(Frames(levels, range(0, 200_000, 1000)))) == [change]


def test_frames_count_as_long_as_they_are_shown():
    # On both sides of 0.3 s dark and bright are on screen for 0.15 s each, behind it bright in many short frames.
    times = [0, 150, *range(300, 450, 10), 450, 600]
    levels = [0, 200, *[200] * 15, 0, 0]
    assert ChangeDetector(drift_weight=0).score(Frames(levels, times)).scores[2] == pytest.approx(0, abs=1e-6)


def test_what_changes_all_the_time_counts_less_than_what_changes_once():
    times = list(range(0, 3000, 50))
    steady = ChangeDetector().score(Frames(range(0, 60), times)).scores
    once = ChangeDetector().score(Frames([20] * 30 + [26] * 30, times)).scores  # as much within 0.3 s
    assert once[30] > 1.4 * steady[30] > 0


def test_boundaries_of_the_world_with_fades(world_folder):
    found = right = wanted = 0
    for path in sorted(world_folder.iterdir()):
        scene = sample_scene(int(path.stem[-8:]), "iid")
        truth = [
            (event.end, max(fade / 2, 100_000)) for event, fade in zip(scene.pictures[:-1], scene.fades, strict=True)
        ]
        with open_media(path) as media:
            scores = ChangeDetector().score(media)
        times = [int(scores.times[at]) for at in find_boundaries(scores)]
        hits = sum(any(abs(time - at) <= slack for time in times) for at, slack in truth)
        found, right, wanted = found + len(times), right + hits, wanted + len(truth)
    assert 2 * right / (found + wanted) > 0.95, os.listdir(world_folder)


def test_the_weakest_boundary_goes_first():
    scores = np.zeros(400, dtype=np.float32)
    scores[[100, 120, 300]] = 0.5, 0.9, 0.4
    # 100 to 120 is too short: of its two sides the weaker one goes, though 300 is weaker still.
    assert merge_boundaries([100, 120, 300], scores) == [120, 300]
    assert merge_boundaries([100, 200, 300], scores, max_clips=3) == [100, 300]  # 200 scores nothing
    assert merge_boundaries([30], np.ones(40, dtype=np.float32)) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_clip_is_too_short_and_there_are_not_too_many(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random(3000).astype(np.float32)
    boundaries = sorted(rng.choice(np.arange(1, 3000), 200, replace=False).tolist())
    edges = [0, *merge_boundaries(boundaries, scores), 3000]
    assert len(edges) - 1 <= 20 and min(np.diff(edges)) >= 50
    assert set(edges[1:-1]) <= set(boundaries)


def test_long_shots_are_split_where_they_change_most():
    scores = np.zeros(400, dtype=np.float32)
    scores[[20, 130, 330]] = 0.9, 0.2, 0.1
    assert split_long([], scores, 3, 50) == [130, 330]  # 20 would leave a clip that is too short
    assert split_long([], np.zeros(400, dtype=np.float32), 4, 50) == [100, 200, 300]
    assert split_long([], np.zeros(120, dtype=np.float32), 4, 50) == [60]


def test_events_are_shots_and_not_the_clips_that_they_were_split_into(clip_path):
    with open_media(clip_path) as media:
        shots = segment({}, media)
        one = segment({}, media, OneShot())
        two = segment({}, media, max_clips=2)
    assert (shots["events"], len(shots["segments"])) == (4, 4)
    assert (one["events"], len(one["segments"])) == (1, 4)
    assert all(segment["cuts"] == [] for segment in (*shots["segments"], *one["segments"]))
    merged = [cut for part in two["segments"] for cut in part["cuts"]]  # merged away, but not forgotten
    assert two["events"] == 2 and sorted([*merged, two["segments"][1]["start"]]) == [3.0, 6.0, 9.0]


class OneShot:
    """A detector that sees no change."""

    name = "none"

    def score(self, media):
        times = np.array(media.frame_times(), dtype=np.int64)
        return FrameScores(times, np.zeros(len(times), dtype=np.float32), 0.5)


def test_boundaries_are_peaks_apart_from_each_other():
    times = np.arange(100, dtype=np.int64) * 40_000
    scores = np.zeros(100, dtype=np.float32)
    scores[[0, 40, 45, 80]] = 1.0, 0.5, 0.6, 0.1
    assert find_boundaries(FrameScores(times, scores, 0.2)) == [45]


def test_histograms_tell_colours_and_not_places():
    frames = np.zeros((3, 3, 8, 8), dtype=np.uint8)
    frames[0, 0, :4], frames[1, 0, 4:], frames[2, 2, :4] = 255, 255, 255
    red, moved, blue = colour_histograms(frames)
    assert red.sum() == pytest.approx(1) and np.allclose(red, moved)
    assert np.abs(red - blue).sum() == pytest.approx(1)

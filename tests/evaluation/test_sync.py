"""Does a model notice that sound and picture are apart?"""

import json

import pytest
from fakes import Fake

from saven_hf.evaluation import ProtocolError, SyncBenchmark, compare, evaluate, sync
from saven_hf.evaluation.sync import OFFSETS, TRAINED_OFFSETS, evaluate_sync_with, parse_alignment, shifted_scene
from saven_hf.world import sample_scene


@pytest.fixture
def no_media(monkeypatch):
    monkeypatch.setattr(sync, "rendered", lambda scene, media_dir, size: media_dir / f"{scene.video_id}.mp4")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("it is in time", "in time"),
        ("it comes half a second late", "late"),
        ("It comes one second early.", "early"),
        ("yes, they change together", "in time"),
        ("it is not in time", "apart"),
        ("out of sync", "apart"),
        ("they are not in sync, the sound lags behind", "late"),
        ("early or late", None),
        ("a red circle", None),
        ("", None),
    ],
)
def test_alignment(text, expected):
    assert parse_alignment(text) == expected


def test_a_shift_moves_every_change_and_leaves_no_gap():
    scene = sample_scene(5, "iid", layout="shifted")
    for seconds in (0.0, 0.7, -0.7):
        shifted = shifted_scene(scene, seconds)
        lags = {
            sound.start - picture.start for picture, sound in zip(scene.pictures[1:], shifted.sounds[1:], strict=True)
        }
        assert lags == {round(seconds * 1e6)}
        assert shifted.sounds[0].start == scene.pictures[0].start and shifted.sounds[-1].end == scene.duration
        assert all(one.end == other.start for one, other in zip(shifted.sounds, shifted.sounds[1:], strict=False))
        assert [sound.kind for sound in shifted.sounds] == [sound.kind for sound in scene.sounds]
    with pytest.raises(ValueError, match="too short"):
        shifted_scene(scene, -60)


def test_half_is_in_time_and_offsets_take_turns(tmp_path):
    benchmark = SyncBenchmark("iid", 64, tmp_path)
    offsets = [benchmark.items(video)[0].tags["offset"] for video in benchmark.video_ids]
    assert offsets.count("+0.0") == 32
    assert {offsets.count(f"{sign}{offset:.1f}") for offset in OFFSETS for sign in "+-"} == {2}
    assert len(set(TRAINED_OFFSETS) & set(OFFSETS)) == 2  # the others are unseen


def asked(answer, out):
    summary = evaluate_sync_with(Fake(answer), out, "iid", 64, progress=False)
    return summary["accuracy"], summary["benchmarks"]["sync-iid"]["figures"]


def test_figures_of_who_knows_and_who_always_says_the_same(tmp_path, no_media):
    words = {"in time": "it is in time", "late": "it comes half a second late", "early": "it comes one second early"}
    accuracy, knows = asked(lambda one: words[one.item.answer], tmp_path / "a")
    assert accuracy == knows["balanced_accuracy"]["value"] == 1
    assert knows["false_alarms"]["value"] == 0 and knows["by_offset"]["-0.6"]["direction"]["value"] == 1
    accuracy, always = asked(lambda one: words["late"], tmp_path / "b")
    assert accuracy == always["balanced_accuracy"]["value"] == 0.5 and always["false_alarms"]["value"] == 1
    assert always["by_offset"]["-0.6"]["noticed"]["value"] == 1
    assert always["by_offset"]["-0.6"]["direction"]["value"] == 0
    accuracy, mumbles = asked(lambda one: "what?", tmp_path / "c")
    assert accuracy == 0 and mumbles["false_alarms"]["value"] == 0 and mumbles["unparsable"] == 192
    # What every run has: tables, hashes of scenes, and a run to compare it with.
    assert "| -0.6 | no |" in (tmp_path / "a" / "report.md").read_text()
    assert (tmp_path / "a" / "plots").is_dir() and (tmp_path / "a" / "tables.json").is_file()
    media = json.loads((tmp_path / "a" / "hashes.json").read_text())["sync-iid"]["media"]
    assert len(media) == 64 and all(one.startswith("scene:") for one in media.values())
    found = compare(tmp_path / "c", tmp_path / "a")["runs"]["sync-iid.plain"]
    assert found["difference"]["value"] == 1 and found["questions"] == 192


def test_open_questions_are_not_weighed(tmp_path, no_media):
    with pytest.raises(ProtocolError, match="sync-iid is open"):
        evaluate(SyncBenchmark("iid", 2, tmp_path), Weighs(None), tmp_path / "run", protocols=["likelihood"])
    assert not (tmp_path / "run").exists()


class Weighs(Fake):
    def likelihoods(self, asked, candidates, progress=None):
        raise AssertionError("nothing is asked")

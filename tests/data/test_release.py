"""SAVEn-Vid and AVBench, put together from what was built."""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from rows import caption_row, qa_row, video, video_row

from saven_hf.data.builder import EMBEDDED
from saven_hf.data.hub_folder import media_reference, read_rows, splits, write_split
from saven_hf.data.instructions import InstructionMaker, segment_span
from saven_hf.data.messages import DataError
from saven_hf.data.release import build_avbench, build_savenvid, read_reviews
from saven_hf.data.schema import CONFIGS, NOT_CHECKED, RowError, validate_row
from saven_hf.savenvideo.times import parse_spans


datasets = pytest.importorskip("datasets", reason="pip install saven-hf[train]")

SCRIPTS = Path(__file__).parents[2] / "dataset_scripts"
LICENCES = {"own": "CC BY 4.0"}
FAILED = {"passed": False, "score": 0.9, "detail": "told by the text"}


def built(folder, names, split="train", questions=5, segments=4, media=None, source="own", **changes):
    """A folder as `saven build` writes it."""
    rows = {"qa": [], "captions": [], "videos": []}
    for name in names:
        file = {"video": video(name.encode()), "media": None if media is None else media(name)}
        rows["videos"].append(video_row(video_id=name, source=source, **file))
        for at in range(segments):
            end = 10.0 * (at + 1)
            text = f"From 00:00:{10 * at:02d}.000 to 00:00:{end - 0.04:06.3f}, the bell rings and shines."
            rows["captions"].append(
                caption_row(video_id=name, segment=at, start=10.0 * at, end=end, av_caption=text, transcript="Ring!")
            )
        rows["qa"] += [
            qa_row(id=f"{name}-{at}", video_id=name, answer="ABCD"[at % 4], source=source, **file) | changes
            for at in range(questions)
        ]
    for config, of_config in rows.items():
        write_split(folder, config, split, of_config)
    return folder


def ids(folder, config="qa"):
    return [row["id"] for row in read_rows(folder, config, without=("video", "videos"))]


def test_savenvid_of_two_sources(tmp_path):
    one = built(tmp_path / "one", ["a", "b", "c"])
    two = built(tmp_path / "two", ["x"])
    built(tmp_path / "two", ["held-out"], "test")
    done = build_savenvid([one, two], tmp_path / "out", licences=LICENCES, seed=1)
    out = tmp_path / "out"
    # One video of each source by turns, and none of a test split.
    assert list(dict.fromkeys(row["video_id"] for row in read_rows(out, "qa"))) == ["a", "x", "b", "c"]
    assert {config: splits(out, config) for config in CONFIGS} == {
        **dict.fromkeys(("qa", "captions", "videos", "sft"), ["train"]),
        "world": [],
    }
    for config in ("qa", "captions", "videos", "sft"):
        for row in read_rows(out, config):
            validate_row(row, config, 60.0)
    assert {row["video"]["bytes"].decode() for row in read_rows(out, "qa")} == {"a", "b", "c", "x"}
    assert all(row["video_id"].encode() == row["videos"][0]["bytes"] for row in read_rows(out, "sft"))
    assert all(row["transcript"] == "Ring!" for row in read_rows(out, "captions"))
    kinds = done["statistics"]["sft"]["train"]["kinds"]
    assert kinds["question"] == 20 and sum(kinds.values()) - 20 == 11  # 20 * 21 / 37 = 11.35
    card = (out / "README.md").read_text()
    assert "| instructions | 58,000 | 31 |" in card and "| own | 55 | CC BY 4.0 |" in card
    assert datasets.load_dataset(str(out), "sft", split="train", streaming=True).features is not None


def test_what_a_check_failed_is_left_out_and_counted(tmp_path):
    good = built(tmp_path / "good", ["a"])
    leaking = built(tmp_path / "leaking", ["b"], checks=NOT_CHECKED | {"leakage": FAILED})
    done = build_savenvid([good, leaking], tmp_path / "out", licences=LICENCES)
    assert len(ids(tmp_path / "out")) == 10 and not done["left_out"]  # leakage spoils a test, not an example
    done = build_savenvid([good, leaking], tmp_path / "out", licences=LICENCES, require=["leakage"])
    assert ids(tmp_path / "out") == [f"a-{at}" for at in range(5)] and done["left_out"] == {"leakage": 5}
    # Captions of a video without a question are kept, to learn from.
    assert {row["video_id"] for row in read_rows(tmp_path / "out", "captions")} == {"a", "b"}
    assert "Left out were: 5 for leakage." in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(DataError, match="no question of a split 'train' is left.*'leakage': 5"):
        build_savenvid([leaking], tmp_path / "none", licences=LICENCES, require=["leakage"])
    assert not (tmp_path / "none").exists()


def test_avbench_takes_test_splits_with_three_events(tmp_path):
    rich = built(tmp_path / "rich", ["a"], "test")
    one = {"passed": False, "score": 1.0, "detail": None}  # one shot, which was split into four segments
    poor = built(tmp_path / "poor", ["b"], "test", checks=NOT_CHECKED | {"events": one})
    done = build_avbench([rich, poor], tmp_path / "out", licences=LICENCES)
    rows = list(read_rows(tmp_path / "out", "qa"))
    assert {row["video_id"] for row in rows} == {"a"} and done["left_out"] == {"events": 5}
    assert all(row["checks"]["events"] is None for row in rows)  # nobody counted: rows of captions are no events
    assert not splits(tmp_path / "out", "sft") and "No person has looked" in (tmp_path / "out/README.md").read_text()


def test_avbench_shares_no_video_with_what_is_trained_on(tmp_path):
    def media(name):
        return {"file": name, "sha256": "ab" * 32, "size": 1, "origin": None, "start": None, "end": None}

    trained = built(tmp_path / "trained", ["a"], media=media)
    renamed = built(tmp_path / "test", ["b"], "test", media=media)
    other = built(tmp_path / "other", ["c"], "test")
    done = build_avbench([renamed, other], tmp_path / "out", licences=LICENCES, against=[trained])
    assert {row["video_id"] for row in read_rows(tmp_path / "out", "videos")} == {"c"}
    assert done["left_out"] == {"a video that is trained on": 5}


def test_reviews_decide(tmp_path):
    folder = built(tmp_path / "built", ["a"], "test", checks=NOT_CHECKED | {"redundancy": FAILED})
    reviews = [
        {"id": "a-0", "verdict": "drop"},
        {"id": "a-0", "verdict": "keep"},
        {"id": "a-1", "verdict": "fix", "changes": {"question": "What rings?"}},
        {"id": "a-2", "verdict": "drop", "reason": "one modality only"},
    ]
    path = tmp_path / "reviews.jsonl"
    path.write_text("\n".join(map(json.dumps, reviews)) + "\n")
    done = build_avbench([folder], tmp_path / "out", licences=LICENCES, reviews=path)
    assert [(row["id"], row["question"][:9]) for row in read_rows(tmp_path / "out", "qa")] == [
        ("a-0", "What is h"),
        ("a-1", "What ring"),
    ]
    assert done["left_out"] == {"dropped in review": 1, "not reviewed": 2}
    path.write_text(json.dumps({"id": "a-1", "verdict": "fix", "changes": {"answer": "E"}}))
    with pytest.raises(RowError, match="qa row 'a-1': the answer is 'E'"):
        build_avbench([folder], tmp_path / "bad", licences=LICENCES, reviews=path)
    for line, said in (('{"id": "a", "verdict": "yes"}', "verdict is 'yes'"), ("[]", "'id'"), ("{", "not JSON")):
        path.write_text("\n" + line)
        with pytest.raises(DataError, match=f"reviews.jsonl:2: .*{said}"):
            read_reviews(path)


def test_media_copied_or_only_named(tmp_path):
    source = tmp_path / "built"
    (source / "clips").mkdir(parents=True)
    (source / "clips" / "a.mp4").write_bytes(b"a")
    reference = media_reference(source / "clips" / "a.mp4", source, origin="somewhere", start=1.0, end=61.0)
    built(source, ["a"], media=lambda name: reference)
    options = {"licences": LICENCES}
    build_savenvid([source], tmp_path / "named", media="reference", **options)
    for row in read_rows(tmp_path / "named", "qa"):
        assert row["video"] is None and row["media"] == reference
    assert all(row["videos"] == [] for row in read_rows(tmp_path / "named", "sft"))
    build_savenvid([source], tmp_path / "copied", media="copy", **options)
    row = next(read_rows(tmp_path / "copied", "sft"))
    assert row["media"] == reference | {"file": "videos/a.mp4"}
    assert (tmp_path / "copied" / "videos" / "a.mp4").read_bytes() == b"a"
    build_savenvid([tmp_path / "named"], tmp_path / "found", media_root=source, **options)
    assert next(read_rows(tmp_path / "found", "qa"))["video"] == {"bytes": b"a", "path": "a.mp4"}
    with pytest.raises(DataError, match="no such file: fetch it to this place; it came from somewhere"):
        build_savenvid([tmp_path / "named"], tmp_path / "lost", **options)


def test_videos_that_may_not_be_passed_on_are_only_named(tmp_path):
    (tmp_path / "videomme").mkdir()
    (tmp_path / "videomme" / "a.mp4").write_bytes(b"a")
    reference = media_reference(tmp_path / "videomme" / "a.mp4")
    folder = built(tmp_path / "built", ["a"], "test", media=lambda name: reference, source="videomme")
    with pytest.raises(DataError, match="'videomme' may not be passed on .academic research only.*media='reference'"):
        build_avbench([folder], tmp_path / "out")
    build_avbench([folder], tmp_path / "out", media="reference")
    assert "| videomme | 6 | academic research only" in (tmp_path / "out" / "README.md").read_text()
    build_avbench([folder], tmp_path / "mine", licences={"videomme": "by permission"})
    assert next(read_rows(tmp_path / "mine", "qa"))["video"]["bytes"] == b"a"


def test_bad_requests(tmp_path):
    folder = built(tmp_path / "built", ["a"])
    for folders, options, said in (
        ([folder], {"media": "link"}, "embed, copy, reference"),
        ([folder], {"require": ["beauty"]}, "no check 'beauty': there are format"),
        ([folder, folder], {}, "'a' is in more than one folder"),
        ([tmp_path], {}, "no data/videos below it"),
        ([folder], {"licences": {}}, "the source 'own', whose licence"),
    ):
        with pytest.raises(DataError, match=said):
            build_savenvid(folders, tmp_path / "out", **{"licences": LICENCES} | options)
    assert not (tmp_path / "out").exists()


class TestInstructions:
    def rows(self, videos=30, **options):
        maker = InstructionMaker(**options)
        captions = [
            caption_row(segment=at, start=10.0 * at, end=10.0 * at + 10, av_caption="Lights out, a bell.")
            for at in range(4)
        ]
        questions = [qa_row(id=str(at)) for at in range(5)]
        return [maker.rows(video_row(video_id=str(at)), captions, questions) for at in range(videos)]

    def test_captions_to_questions_as_21_to_37(self):
        rows = sum(self.rows(37), [])
        kinds = Counter(row["kind"] for row in rows)
        assert kinds["question"] == 37 * 5 and sum(kinds.values()) - kinds["question"] == 21 * 5
        spans = sum(count for kind, count in kinds.items() if "span" in kind)
        assert abs(spans - 21 * 5 / 2) < 12 and len(kinds) == 7
        assert len({row["id"] for row in rows}) == len(rows)

    def test_the_same_seed_gives_the_same_rows(self):
        assert self.rows(3) == self.rows(3) != self.rows(3, seed=1)

    def test_spans_are_asked_about_and_answered_with_the_same_times(self):
        for row in sum(self.rows(), []):
            user, assistant = (message["content"][-1]["text"] for message in row["messages"])
            if "span" in row["kind"]:
                assert parse_spans(user) == parse_spans(assistant) != []
            validate_row(row, "sft", 60.0)

    def test_questions_are_put_as_everywhere(self):
        (row, *_), *_ = self.rows(1)
        user, assistant = (message["content"][-1]["text"] for message in row["messages"])
        assert user.splitlines()[0] == qa_row()["question"] and "B. A bell" in user and assistant == "A bell (B)"

    def test_times_are_those_of_the_first_and_last_frame(self):
        assert segment_span(caption_row()) == (0, 9_460_000)
        assert segment_span(caption_row(av_caption="A bell at 00:00:02.000.")) == (0, 9_500_000)


def test_the_embedded_sets_are_small():  # `make quality` checks that they are up to date
    assert 0 < sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) < 3_000_000


def test_the_scripts(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPTS)
    folder = built(tmp_path / "built", ["a"], "test")
    for name, wanted in (("build_avbench", 0), ("build_savenvid", 2)):
        words = [name, str(folder), "--out", str(tmp_path / name), "--licence", "own=CC BY 4.0"]
        monkeypatch.setattr(sys, "argv", words)
        main = importlib.import_module(name).main
        if wanted == 0:
            assert main() == 0
            assert json.loads(capsys.readouterr().out)["statistics"]["qa"]["test"]["rows"] == 5
        else:
            with pytest.raises(SystemExit) as exit:
                main()
            said = capsys.readouterr().err
            assert exit.value.code == wanted and "error: no question of a split 'train'" in said
            assert len(said.splitlines()) == 1

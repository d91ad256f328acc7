"""Benchmarks on files of the published form, and what is said about files that are not quite of it."""

import csv
import json
from pathlib import Path

import pytest
import restated_scorers
from fakes import Fake

from saven_hf.evaluation import AVEB, AVBench, BenchmarkFileError, MusicAVQA, OpenQA, Pair, VideoMME, evaluate
from saven_hf.evaluation.music_avqa import COLUMNS, filled
from saven_hf.evaluation.official import MUSIC_ANSWERS
from saven_hf.evaluation.published import BadRowError, read_rows


def media(folder, *names):
    """Empty files: fakes look at none."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def kinds(benchmark):
    return [problem.kind for problem in benchmark.problems]


# ---------------------------------------------------------------------------------------------------------------------
# MUSIC-AVQA

# All templates of the published val and test sets (json_update), 33 in each, with values as they are filled in.
TEMPLATES = [
    ("Audio", "Counting", "Is there a <Object> sound?", ["flute"], "Is there a flute sound?"),
    ("Audio", "Counting", "How many musical instruments were heard throughout the video?", [], None),
    ("Audio", "Counting", "Are there <Object> and <Object> sound? ", ["cello", "pipa"],
     "Are there cello and pipa sound?"),
    ("Audio", "Comparative", "Is the <Object> more rhythmic than the <Object>?", ["cello", "pipa"],
     "Is the cello more rhythmic than the pipa?"),
    ("Audio", "Comparative", "Is the <Object> louder than the <Object>?", ["cello", "pipa"], None),
    ("Audio", "Comparative", "Is the <Object> playing longer than the <Object>?", ["cello", "pipa"], None),
    ("Visual", "Counting", "Is there a <Object> in the entire video?", ["suona"], None),
    ("Visual", "Counting", "Are there <Object> and <Object> instruments in the video?", ["cello", "drum"], None),
    ("Visual", "Counting", "How many types of musical instruments appeared in the entire video?", [], None),
    ("Visual", "Counting", "How many <Object> are in the entire video?", ["acoustic_guitar"],
     "How many acoustic guitar are in the entire video?"),
    ("Visual", "Location", "Where is the performance?", [], None),
    ("Visual", "Location", "What is the instrument on the <LR> of <Object>?", ["left", "piano"], None),
    ("Visual", "Location", "What kind of musical instrument is it?", [], None),
    ("Visual", "Location", "What kind of instrument is the <LRer> instrument? ", ["leftest"],
     "What kind of instrument is the leftest instrument?"),
    ("Audio-Visual", "Existential", "Is this sound from the instrument in the video?", [], None),
    ("Audio-Visual", "Existential", "Is the <Object> in the video always playing?", ["erhu"], None),
    ("Audio-Visual", "Existential", "Is there a voiceover?", [], None),
    ("Audio-Visual", "Counting", "How many instruments are sounding in the video?", [], None),
    ("Audio-Visual", "Counting", "How many types of musical instruments sound in the video?", [], None),
    ("Audio-Visual", "Counting", "How many instruments in the video did not sound from beginning to end?", [], None),
    ("Audio-Visual", "Counting", "How many sounding <Object> in the video\uff1f", ["bagpipe"],
     "How many sounding bagpipe in the video?"),
    ("Audio-Visual", "Location", "Where is the <LL> instrument?", ["loudest"], None),
    ("Audio-Visual", "Location", "Is the <FL> sound coming from the <LR> instrument?", ["first", "left"], None),
    ("Audio-Visual", "Location", "Which is the musical instrument that sounds at the same time as the <Object>?",
     ["tuba"], None),
    ("Audio-Visual", "Location", "What is the <LR> instrument of the <FL> sounding instrument?", ["left", "first"],
     None),
    ("Audio-Visual", "Comparative", "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?",
     ["left", "right"], None),
    ("Audio-Visual", "Comparative", "Is the instrument on the <LR> louder than the instrument on the <LR>?",
     ["left", "right"], None),
    ("Audio-Visual", "Comparative", "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?",
     ["cello", "left", "pipa", "right"], "Is the cello on the left more rhythmic than the pipa on the right?"),
    ("Audio-Visual", "Comparative", "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
     ["cello", "left", "pipa", "right"], None),
    ("Audio-Visual", "Temporal", "Where is the <FL> sounding instrument?", ["first"], None),
    ("Audio-Visual", "Temporal", "Which <Object> makes the sound <FL>?", ["drum", "last"], None),
    ("Audio-Visual", "Temporal", "What is the <TH> instrument that comes in?", ["second"], None),
    ("Audio-Visual", "Temporal", "Which instrument makes sounds <BA> the <Object>?", ["before", "congas"], None),
]  # fmt: skip


def music_row(number, modality, kind, question, values, answer, video="00000093"):
    return {
        "video_id": video, "question_id": number, "type": json.dumps([modality, kind]), "question_content": question,
        "templ_values": json.dumps(values), "question_deleted": 0, "anser": answer,
    }  # fmt: skip


@pytest.fixture
def music(tmp_path):
    """All templates and all answer words, on one real and one synthetic video."""
    rows = [
        music_row(
            number, *TEMPLATES[number % len(TEMPLATES)][:4], answer=MUSIC_ANSWERS[number % len(MUSIC_ANSWERS)],
            video="00000093" if number % 2 else "va00003871",
        )
        for number in range(2 * len(MUSIC_ANSWERS))
    ]  # fmt: skip
    path = tmp_path / "data" / "json_update" / "avqa-test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    media(tmp_path, "videos/00000093.mp4", "videos/va00003871.mp4")
    return tmp_path, rows, path


def test_music_avqa_reads_every_template_and_answer(music):
    folder, rows, _ = music
    benchmark = MusicAVQA(folder)
    items = [item for video in benchmark.video_ids for item in benchmark.items(video)]
    assert len(items) == len(rows) and benchmark.problems == [] and len(TEMPLATES) == 33
    assert {item.answer for item in items} == set(MUSIC_ANSWERS)
    assert {(item.tags["modality"], item.tags["kind"]) for item in items} == set(COLUMNS)
    assert {item.tags["video"] for item in items} == {"real", "synthetic"}
    questions = {item.question for item in items}
    for *_, question, values, expected in TEMPLATES:
        assert (expected or filled(question, values)) in questions
    assert not any("<" in question or "\uff1f" in question or question != question.strip() for question in questions)
    assert len(benchmark.closed_set(items[0])) == 42


def test_music_avqa_scores_as_its_script_does(music, tmp_path):
    """The script's figures, computed here the way it does: lists of hits by type, averages over questions."""
    folder, rows, _ = music
    benchmark = MusicAVQA(folder)

    def said_to(number, answer):
        shapes = (answer, answer.replace("_", " ").title() + ".", "I hear nothing")
        return shapes[number % 3]

    def answer(one):
        return said_to(int(one.item.id), one.item.answer)

    summary = evaluate(benchmark, Fake(answer), tmp_path / "run", progress=False)
    found = summary["benchmarks"]["music-avqa-test"]["figures"]
    hits = {}
    for row in rows:
        right = row["anser"].upper() == said_to(row["question_id"], row["anser"]).rstrip(" .").upper()
        hits.setdefault(tuple(json.loads(row["type"])), []).append(right)
    for modality, short in (("Audio", "A"), ("Visual", "V"), ("Audio-Visual", "AV")):
        whole = [hit for (of, _), those in hits.items() for hit in those if of == modality]
        assert found["exact"][f"{short} Avg"] == pytest.approx(100 * sum(whole) / len(whole))
        for of, kind in COLUMNS:
            if of == modality:
                those = hits[of, kind]
                assert found["exact"][f"{short} {kind}"] == pytest.approx(100 * sum(those) / len(those))
    whole = [hit for those in hits.values() for hit in those]
    assert found["exact"]["All"] == pytest.approx(100 * sum(whole) / len(whole))
    assert len(found["exact"]) == 13
    assert found["normalised"]["All"] == pytest.approx(100 * 2 / 3, abs=1) and summary["accuracy"] > 0.6
    assert found["normalised"]["All"] > found["exact"]["All"]  # underscores
    lines = (tmp_path / "run" / "music-avqa-test.predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] != [] and len(lines) == len(rows)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "MUSIC-AVQA's table, percent" in report and "| synthetic | exact |" in report
    assert "\\toprule" in (tmp_path / "run" / "tables.tex").read_text()


def test_music_avqa_says_what_is_wrong(music):
    folder, rows, path = music
    rows[0] |= {"anser": ""}
    rows[1] |= {"anser": "kazoo"}
    rows[2] |= {"templ_values": '["a", "b", "c"]'}
    rows[3] |= {"type": '["Audio", "Smell"]'}
    rows[5] |= {"question_id": rows[7]["question_id"]}
    rows.append(music_row(900, *TEMPLATES[0][:4], "yes", "00009999"))
    path.write_text(json.dumps(rows))
    benchmark = MusicAVQA(folder)
    assert sorted(kinds(benchmark)) == [
        "bad_row", "bad_row", "duplicate_id", "missing_answer", "missing_media", "unknown_letter",
    ]  # fmt: skip
    assert benchmark.left_out == 5
    ids = [item.id for video in benchmark.video_ids for item in benchmark.items(video)]
    assert len(ids) == len(set(ids)) == len(rows) - 5
    assert any(one.endswith("#2") for one in ids)
    with pytest.raises(BenchmarkFileError, match="no json/avqa-test.json"):
        MusicAVQA(folder, "test-original")
    with pytest.raises(BadRowError):
        filled("Is the <Object> loud?", [])


# ---------------------------------------------------------------------------------------------------------------------
# Video-MME


def mme_rows(videos=6):
    durations = ("short", "medium", "long")
    return [
        {
            "video_id": f"{video + 1:03d}", "duration": durations[video % 3], "domain": "Knowledge",
            "sub_category": "Geography" if video % 2 else "Law", "url": f"https://www.youtube.com/watch?v=id{video}",
            "videoID": f"id{video}", "question_id": f"{video + 1:03d}-{number}",
            "task_type": "OCR Problems" if number == 1 else "Counting Problem", "question": f"Question {number}?",
            "options": [f"{letter}. Option {letter}{number}." for letter in "ABCD"],
            "answer": "ABCD"[(video + number) % 4],
        }
        for video in range(videos) for number in (1, 2, 3)
    ]  # fmt: skip


@pytest.fixture
def mme(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = mme_rows()
    (tmp_path / "videomme").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "videomme" / "test-00000-of-00001.parquet")
    media(tmp_path, *(f"data/id{video}.mp4" for video in range(6)))
    return tmp_path, rows


ANSWERS = ["{0}", "The best answer is {0}", "According to me {0}", "I cannot tell", "({0}) Option", "Best answer: {0}"]


def test_video_mme_both_scorers(mme, tmp_path):
    folder, rows = mme
    benchmark = VideoMME(folder)
    assert len(benchmark.video_ids) == 6 and benchmark.problems == []
    item = benchmark.items("001")[0]
    assert item.options[0] == "Option A1." and item.tags["task_type"] == "OCR Problems"
    assert benchmark.prompt(item) == (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\nQuestion 1?\nA. Option A1.\nB. Option B1.\nC. Option C1.\n"
        "D. Option D1.\nThe best answer is:"
    )
    order = {row["question_id"]: at for at, row in enumerate(rows)}

    def answer(one):
        return ANSWERS[order[one.item.id] % len(ANSWERS)].format(one.item.answer)

    summary = evaluate(benchmark, Fake(answer), tmp_path / "run", progress=False)
    responses = [ANSWERS[at % len(ANSWERS)].format(row["answer"]) for at, row in enumerate(rows)]
    found = summary["benchmarks"]["videomme"]
    official = found["figures"]["official"]
    # Of six shapes, the third is always A, the fourth no letter, the last always B, and neither is ever right.
    assert official["overall"]["accuracy"] == 9 / 15
    assert official["overall"]["answered"] == 15 and official["overall"]["questions"] == 18
    assert sum(official[name]["questions"] for name in ("short", "medium", "long")) == 18
    assert official["long"]["task_type"]["OCR Problems"]["questions"] == 2
    # Strict: three shapes of six are clear, and so is "Best answer: B"; the denominator is all.
    assert summary["accuracy"] == pytest.approx(4 / 6)
    assert found["plain"]["choice"]["unparsable"] == 6 and found["denominator"]["asked"] == 18
    runs = [json.loads(line) for line in (tmp_path / "run/items/videomme.plain.jsonl").read_text().splitlines()]
    # What is written reads as the template that results are handed in as, and holds the answers.
    results = tmp_path / "run" / "videomme.results.json"
    media(tmp_path / "run", *(f"{video:03d}.mp4" for video in range(1, 7)))
    assert len(VideoMME(results).video_ids) == 6
    written = [question["response"] for video in json.loads(results.read_text()) for question in video["questions"]]
    assert written == responses and len(runs) == 18


def test_video_mme_template_with_trailing_commas_and_old_names(tmp_path):
    (tmp_path / "results.json").write_text(
        '[{"video_id": "001", "duration_category": "short", "video_category": "Knowledge", "video_subcategory": "Law",'
        '"questions": [{"question_id": "001-1", "task_type": "OCR Problems", "question": "Q?",'
        '"options": ["A. x.", "B. y.", "C. z.", "D. w."], "answer": "C", "response": "C",},],},]'
    )
    media(tmp_path, "001.mp4")
    (item,) = VideoMME(tmp_path / "results.json").items("001")
    assert (item.answer, item.options, item.tags["duration"]) == ("C", ("x.", "y.", "z.", "w."), "short")


def test_video_mme_subtitles_of_the_frames_that_are_shown(mme):
    folder, _ = mme
    (folder / "subtitle").mkdir()
    (folder / "subtitle" / "id0.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nfirst\nline\n\n2\n00:00:03,000 --> 00:00:04,000\nsecond\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nthird\n"
    )
    benchmark = VideoMME(folder, subtitles=True)
    item = benchmark.items("001")[0]
    assert benchmark.prompt(item, [1.5, 1.6, 5.5]).startswith(
        "This video's subtitles are listed below:\nfirst line\nthird\nSelect the best answer"
    )
    assert benchmark.prompt(item).split("\n")[1:4] == ["first line", "second", "third"]
    assert benchmark.prompt(benchmark.items("002")[0], [1.5]).startswith("Select")  # it has no subtitle file
    assert not VideoMME(folder).prompt(item, [1.5]).startswith("This")


def test_missing_videos_are_listed_and_asked_when_they_come(mme, tmp_path):
    folder, _ = mme
    (folder / "data" / "id3.mp4").unlink()
    benchmark = VideoMME(folder)
    assert kinds(benchmark) == ["missing_media"] and benchmark.left_out == 3
    out = tmp_path / "run"
    summary = evaluate(benchmark, Fake(lambda one: one.item.answer), out, progress=False)
    one = summary["benchmarks"]["videomme"]["denominator"]
    assert (one["published"], one["asked"], one["left_out"]) == (18, 15, 3)
    assert one["problems"] == {"missing_media": 1}
    assert one["accuracy_of_published"] == pytest.approx(15 / 18) and summary["accuracy"] == 1
    problem = json.loads((out / "problems.jsonl").read_text())
    assert problem["item"] == "004" and "3 questions" in problem["what"]
    assert "004: no id3: 3 questions" in (out / "report.md").read_text()
    media(folder, "data/id3.mp4")
    again = evaluate(VideoMME(folder), Fake(lambda one: one.item.answer), out, progress=False)
    assert again["benchmarks"]["videomme"]["denominator"]["asked"] == 18


# ---------------------------------------------------------------------------------------------------------------------
# AVBench


def av_row(number, **fields):
    return {
        "id": f"q{number}", "video_id": f"v{number % 3}", "video": f"v{number % 3}.mp4",
        "duration": 30.0 + 100 * number,
        "question": "When?", "options": ["from 00:00:00.000 to 00:00:02.000", "from 00:00:01.000 to 00:00:03.000",
                                         "from 00:00:08.000 to 00:00:09.000", "from 00:00:04.000 to 00:00:08.000"],
        "answer": "A", "question_type": "time_range", "category": "localisation", "audio_type": "speech", **fields,
    }  # fmt: skip


def test_avbench_groups_and_times(tmp_path):
    rows = [av_row(number) for number in range(6)] + [av_row(6, options=["a", "b", "c", "d"], answer="b")]
    rows.append(av_row(7, answer="E"))
    rows.append(av_row(8, answer=None))
    (tmp_path / "avbench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    media(tmp_path, "v0.mp4", "v1.mp4", "v2.mp4")
    benchmark = AVBench(tmp_path)
    assert sorted(kinds(benchmark)) == ["missing_answer", "unknown_letter"]
    items = {item.id: item for video in benchmark.video_ids for item in benchmark.items(video)}
    assert items["q0"].tags == {
        "question_type": "time_range", "category": "localisation", "audio_type": "speech", "duration": "0-60 s",
    }  # fmt: skip
    assert items["q1"].tags["duration"] == "1-3 min" and items["q6"].answer == "B"
    said = {
        "q0": "A",
        "q1": "B",
        "q2": "C",
        "q3": "from 00:00:00.000 to 00:00:01.000",
        "q4": "?",
        "q5": "A",
        "q6": "B",
    }
    summary = evaluate(benchmark, Fake(lambda one: said[one.item.id]), tmp_path / "run", progress=False)
    found = summary["benchmarks"]["avbench"]["figures"]
    assert found["mean_iou"]["value"] == pytest.approx((1 + 1 / 3 + 0 + 0.5 + 0 + 1) / 6)
    assert found["seconds_off"]["value"] == pytest.approx((0 + 1 + 7.5 + 0.5 + 0) / 5)
    assert set(summary["benchmarks"]["avbench"]["plain"]["choice"]["by"]) == {
        "question_type", "category", "audio_type", "duration",
    }  # fmt: skip
    plots = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    drawn = ("duration", "question_type", "category", "audio_type", "letters", "time")
    assert plots == {f"avbench.{name}.png" for name in drawn}


def test_avbench_reads_what_the_world_writes(tmp_path):
    pytest.importorskip("datasets")
    from saven_hf.world import build_world

    build_world(tmp_path / "world", 2, split="iid", progress=False)
    benchmark = AVBench(tmp_path / "world", split="iid", spool=tmp_path / "videos")
    items = [item for video in benchmark.video_ids for item in benchmark.items(video)]
    assert len(benchmark.video_ids) == 2 and len(items) > 6 and benchmark.problems == []
    assert all(benchmark.media(video).stat().st_size > 1000 for video in benchmark.video_ids)
    assert benchmark.media_hash(benchmark.video_ids[0]).startswith("sha256:")


# ---------------------------------------------------------------------------------------------------------------------
# AVEB, SAVE and open questions


def save(folder, name, rows):
    (folder / name).write_text(json.dumps(rows))


def scores(benchmark, answers):
    items = [item for video in benchmark.video_ids for item in benchmark.items(video)]
    return [benchmark.score(item, answer) for item, answer in zip(items, answers, strict=True)]


def test_aveb_choices_and_matching(tmp_path):
    row = {
        "image": "1101/25.mp4",
        "question": "what?",
        "answer": "two",
        "answer_candidates": ["a", "two", "c", "d", "e"],
    }
    save(tmp_path, "nextqa_test.json", [row, row | {"image": "9/nowhere.mp4"}])
    pairs = [["x/clip.mp4", "x/clip.wav"], ["x/clip.mp4", "y/other.wav"], ["COCO.jpg", "SpokenCOCO/w.wav"]]
    save(tmp_path, "audiovisualmatching_combined.json", [
        {"image": pair, "question": "Is the audio compatible with the video?", "answer": answer, "text": "..."}
        for pair, answer in zip(pairs, ("Yes", "No", "No"), strict=True)
    ])  # fmt: skip
    media(tmp_path, "NExT/25.mp4", "clip.mp4", "clip.wav", "other.wav", "COCO.jpg", "w.wav")
    choice = AVEB("video-qa", tmp_path)
    assert kinds(choice) == ["missing_media"]
    assert [one["correct"] for one in scores(choice, ["B"])] == [True]
    matching = AVEB("avm", tmp_path, spool=tmp_path / "spool")
    first, second, third = matching.video_ids
    assert matching.media(first).name == "clip.mp4"
    assert isinstance(matching.media(third), Pair)
    assert matching.items(second)[0].tags["source"] == "VGGSound"
    verdicts = scores(matching, ["Yes, it is.", "no.", "It may be"])
    assert [(one["parsed"], one["correct"]) for one in verdicts] == [("yes", True), ("no", True), (None, False)]
    assert matching.prompt(matching.items(first)[0]).endswith("Answer with yes or no.")


def test_aveb_text(tmp_path):
    pytest.importorskip("jiwer")
    save(tmp_path, "how2_test.json", [
        {"image": ["a_1_2.mp4", "a_1_2.wav"], "question": "Transcribe.", "answer": "I can't see 2 dogs."},
        {"image": ["b_1_2.mp4", "b_1_2.wav"], "question": "Transcribe.", "answer": "Hello there"},
    ])  # fmt: skip
    save(tmp_path, "textvqa.json", [{"image": "t.jpg", "question": "brand?", "answer": ["dakota"] * 6 + ["x"] * 4}])
    save(tmp_path, "testdata_formatted.json", [
        {"image": ["c.mp4", "c.wav"], "question": "Source?",
         "answer": "The source of this sound in this scene is pigeon, dove cooing."}
    ])  # fmt: skip
    save(tmp_path, "avsd_textformat_subset.json", [
        {"image_name": ["d.mp4", "audios/d.wav"], "conversation": [["Who?", "A man."], ["Where?", "In a kitchen."]]}
    ])  # fmt: skip
    media(tmp_path, *(f"{name}.mp4" for name in ("a_1_2", "b_1_2", "c", "d")), "t.jpg")
    spoken = AVEB("avsr", tmp_path)
    found = scores(spoken, ["i can not see two dogs", "hello"])
    assert [(one["errors"], one["words"]) for one in found] == [(0, 6), (1, 2)]
    assert scores(AVEB("ocr", tmp_path), ["The Dakota!"])[0]["score"] == 1.0
    source = AVEB("avssd", tmp_path)
    verdicts = [source.score(source.items("c")[0], said) for said in ("A dove cooing", "a pigeon", "cooing")]
    assert [one["correct"] for one in verdicts] == [True, True, False]
    dialogue = AVEB("avsd", tmp_path).items("d")[0]
    assert dialogue.question == "Question: Who?\nAnswer: A man.\nQuestion: Where?\nAnswer:"
    assert dialogue.answer == "In a kitchen." and dialogue.form == "caption"


def test_aveb_librispeech_and_audiocaps(tmp_path):
    folder = tmp_path / "test-clean" / "61" / "70968"
    folder.mkdir(parents=True)
    (folder / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n61-70968-0001 AND SO\n61-70968-0002 \n")
    media(folder, "61-70968-0000.flac", "61-70968-0001.flac")
    speech = AVEB("asr", tmp_path)
    assert speech.video_ids == ["61-70968-0000", "61-70968-0001"] and kinds(speech) == ["missing_answer"]
    with open(tmp_path / "test.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        writer.writerows([[number, "yt0", 30, f"caption {number}"] for number in range(5)])
    media(tmp_path, "yt0_30.wav")
    (item,) = AVEB("audio-caption", tmp_path).items("yt0")
    assert len(item.references) == 5 and item.form == "caption"


def test_open_questions_of_all_kinds(tmp_path):
    rows = [
        {"video": "a.mp4", "question": "Who sings?", "answer": ["a man", "the man"]},
        {"video": "a.mp4", "question": "Which?", "options": ["x", "y"], "answer": "B", "tags": {"skill": "sight"}},
        {"audio": "b.wav", "answer": "rain falls"},
        {"audio": "b.wav", "kind": "transcript", "answer": "hello"},
        {"video": "a.mp4", "question": "No answer?"},
        {"video": "a.mp4", "kind": "riddle", "question": "?", "answer": "x"},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    media(tmp_path, "a.mp4", "b.wav")
    benchmark = OpenQA(tmp_path / "mine.jsonl")
    assert sorted(kinds(benchmark)) == ["bad_row", "missing_answer"]
    forms = [item.form for video in benchmark.video_ids for item in benchmark.items(video)]
    assert forms == ["words", "choice", "caption", "transcript"]
    first = benchmark.items("a.mp4")[0]
    assert [benchmark.score(first, said)["correct"] for said in ("The man.", "A MAN", "it is a man")] == [
        True, True, False,
    ]  # fmt: skip
    assert benchmark.score(first, "it is a man")["contains"]
    ruled = OpenQA(tmp_path / "mine.jsonl", rules="clotho-aqa")
    assert ruled.score(first, "A man.")["official"] == {"exact": True, "binary": None}


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.json", "{", "line 1: this is no JSON"),
        ("a.json", '{"a": 1}', "no list of rows"),
        ("a.json", "[1]", "an object was expected"),
        ("a.jsonl", '{"a": 1}\n{', "line 2"),
        ("a.txt", "", "none of .json"),
        ("a.json", "[]", "no rows at all"),
    ],
)
def test_files_that_are_no_benchmarks(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(BenchmarkFileError, match=said):
        list(read_rows(tmp_path / name)) or OpenQA(tmp_path / name)


@pytest.mark.parametrize("name", ["../secret.mp4", "../inside.mp4", "x/../inside.mp4"])
def test_names_that_lead_out_of_the_folder_find_nothing(tmp_path, name):
    media(tmp_path, "secret.mp4", "data/inside.mp4")
    (tmp_path / "data" / "mine.jsonl").write_text(json.dumps({"video": name, "question": "?", "answer": "x"}))
    with pytest.raises(BenchmarkFileError, match="1 missing_media"):
        OpenQA(tmp_path / "data")


# ---------------------------------------------------------------------------------------------------------------------
# Nothing is passed over in silence


def open_rows(folder, *names):
    lines = [json.dumps({"video": name, "question": "?", "answer": "x"}) + "\n" for name in names]
    (folder / "mine.jsonl").write_text("".join(lines))


def test_a_missing_file_is_not_answered_from_another_folder(tmp_path):
    open_rows(tmp_path, "a/1.mp4", "c/1.mp4")
    media(tmp_path, "c/1.mp4")
    benchmark = OpenQA(tmp_path)
    assert benchmark.video_ids == ["c/1.mp4"] and benchmark.left_out == 1
    (problem,) = benchmark.problems
    assert (problem.kind, problem.item) == ("missing_media", "a/1.mp4") and "c/1.mp4" in problem.what
    # Nor where its own folder is there without it, whatever else is asked about.
    media(tmp_path, "a/2.mp4")
    open_rows(tmp_path, "a/1.mp4", "a/2.mp4")
    assert OpenQA(tmp_path).video_ids == ["a/2.mp4"]
    media(tmp_path, "a/1.mp4")
    assert OpenQA(tmp_path).media("a/1.mp4") == tmp_path / "a" / "1.mp4"


def test_files_of_one_name_are_told_apart_or_refused(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.mp4").write_text(folder)
    (tmp_path / "2.mp4").touch()
    open_rows(tmp_path, "1.mp4", "2.mp4")
    benchmark = OpenQA(tmp_path)
    assert benchmark.video_ids == ["2.mp4"] and kinds(benchmark) == ["ambiguous_media"]
    assert str(tmp_path / "b" / "1.mp4") in benchmark.problems[0].what
    (tmp_path / "b" / "1.mp4").write_text("a")  # a copy is no other file
    assert OpenQA(tmp_path).video_ids == ["1.mp4", "2.mp4"]
    # Two names of authors' folders that fit one file equally well: it is neither's.
    open_rows(tmp_path, "x/2.mp4", "y/2.mp4", "2.mp4")
    assert OpenQA(tmp_path).video_ids == ["2.mp4"]
    open_rows(tmp_path, "x/2.mp4", "y/2.mp4", "1.mp4")
    assert kinds(OpenQA(tmp_path)) == ["ambiguous_media"] * 2


def test_videos_without_an_id_do_not_merge(tmp_path):
    media(tmp_path, "a/1.mp4", "c/1.mp4")
    rows = [av_row(number, video=f"{folder}/1.mp4", video_id=None) for number, folder in enumerate("ac")]
    rows.append(av_row(2, video="a/1.mp4", video_id="c/1.mp4"))  # another file under the same id
    (tmp_path / "avbench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = AVBench(tmp_path)
    assert [benchmark.media(video) for video in benchmark.video_ids] == [tmp_path / "a/1.mp4", tmp_path / "c/1.mp4"]
    assert [len(benchmark.items(video)) for video in benchmark.video_ids] == [1, 1]
    assert kinds(benchmark) == ["bad_row"] and "'c/1.mp4' is c/1.mp4, here a/1.mp4" in benchmark.problems[0].what


def test_a_limit_is_told(mme, tmp_path, capsys):
    from saven_hf.cli import main

    folder, _ = mme
    (folder / "data" / "id0.mp4").unlink()
    words = ["eval", "--benchmark", "videomme", "--data", str(folder), "--videos", "2", "--baseline", "always-a"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "videomme: asked 6 of 18 questions, 9 beyond --videos, 1 missing_media" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["benchmarks"]["videomme"]["denominator"]
    assert (found["published"], found["asked"], found["beyond_limit"], found["left_out"]) == (18, 6, 9, 3)


def test_several_files_are_one_table_or_none(mme, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    folder, rows = mme
    (folder / "videomme" / "test-00000-of-00001.parquet").unlink()
    halves = [rows[:9], rows[9:]]
    for number, half in enumerate(halves):
        path = folder / "videomme" / f"test-0000{number}-of-00002.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(half), path)
    whole = VideoMME(folder)
    assert len(whole.video_ids) == 6 and whole.problems == []
    before = whole.settings["annotations"]
    path.unlink()
    with pytest.raises(BenchmarkFileError, match="1 of the 2 files test-"):
        VideoMME(folder)
    parquet.write_table(pyarrow.Table.from_pylist(rows[9:12]), path)
    assert VideoMME(folder).settings["annotations"] != before
    media(tmp_path, "a.mp4")
    open_rows(tmp_path, "a.mp4")
    (tmp_path / "other.jsonl").write_text((tmp_path / "mine.jsonl").read_text())
    with pytest.raises(BenchmarkFileError, match="Both .*mine.jsonl and .*other.jsonl fit: name the one you mean"):
        OpenQA(tmp_path)
    assert OpenQA(tmp_path / "other.jsonl").video_ids == ["a.mp4"]


def test_subtitles_that_are_not_there_are_told(mme):
    folder, _ = mme
    with pytest.raises(BenchmarkFileError, match=r"has no \*.srt"):
        VideoMME(folder, subtitles=True)
    (folder / "id0.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nfirst\n")
    benchmark = VideoMME(folder, subtitles=True)
    assert kinds(benchmark) == ["missing_subtitles"] * 5 and benchmark.left_out == 0
    assert len(benchmark.video_ids) == 6 and benchmark.problems[0].item == "002"


# ---------------------------------------------------------------------------------------------------------------------
# Frozen predictions, with figures that the published scorers give


def frozen(name):
    return json.loads((Path(__file__).parent / "frozen" / f"{name}.json").read_text(encoding="utf-8"))


def test_frozen_predictions_on_video_mme(tmp_path):
    kept = frozen("videomme")
    golden = kept["golden"]
    assert restated_scorers.video_mme(kept["videos"]) == pytest.approx(golden)
    media(tmp_path, *(f"{video['video_id']}.mp4" for video in kept["videos"]))
    (tmp_path / "results.json").write_text(json.dumps(kept["videos"]))
    said = {
        question["question_id"]: question["response"] for video in kept["videos"] for question in video["questions"]
    }
    summary = evaluate(
        VideoMME(tmp_path / "results.json"), Fake(lambda one: said[one.item.id]), tmp_path / "run", progress=False
    )
    ours = {}
    for part, found in summary["benchmarks"]["videomme"]["figures"]["official"].items():
        ours[f"{part}/accuracy"] = 100 * found["accuracy"]
        for tag in ("domain", "sub_category", "task_type"):
            for value, one in found[tag].items():
                if one["answered"]:
                    ours[f"{part}/{tag}/{value}"] = 100 * one["accuracy"]
    assert ours == pytest.approx(golden) and len(golden) > 30
    assert "| overall | task_type | OCR Problems |" in (tmp_path / "run" / "report.md").read_text()


def test_frozen_predictions_on_music_avqa(tmp_path):
    kept = frozen("music_avqa")
    golden, said = kept["golden"], {str(at): text for at, text in enumerate(kept["predictions"])}
    assert restated_scorers.music_avqa(kept["rows"], kept["predictions"]) == pytest.approx(golden)
    (tmp_path / "avqa-test.json").write_text(json.dumps(kept["rows"]))
    media(tmp_path, *(f"{row['video_id']}.mp4" for row in kept["rows"]))
    benchmark = MusicAVQA(tmp_path / "avqa-test.json")
    summary = evaluate(benchmark, Fake(lambda one: said[one.item.id]), tmp_path / "run", progress=False)
    found = summary["benchmarks"]["music-avqa-test"]["figures"]
    assert found["exact"] == pytest.approx(golden) and len(golden) == 13
    assert found["normalised"]["All"] > golden["All"]

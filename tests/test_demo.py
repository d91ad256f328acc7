"""`saven demo`: an unseen video, five questions, answers from the model and nowhere else."""

import re

import pytest
import torch
from PIL import Image

from saven_hf import load
from saven_hf.ask import Answer, VideoSession
from saven_hf.cli import main
from saven_hf.demo import demo
from saven_hf.hub import DEFAULT_MODEL, WEIGHT_FILES, config_folder
from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.times import parse_spans
from saven_hf.world import SPLITS, blacken_picture, make_questions, sample_scene, write_video
from saven_hf.world.grounds import grounds
from saven_hf.world.questions import PAPER_FORMATS


needs_weights = pytest.mark.skipif(
    not any((config_folder(DEFAULT_MODEL) / name).is_file() for name in WEIGHT_FILES),
    reason="the embedded model has no weights: nothing was learnt that could be right or wrong",
)


@pytest.fixture(scope="module")
def model():
    return load(device="cpu")


@pytest.fixture
def oracle(monkeypatch):
    """In place of a model: answers of seed 0, right but for the second."""
    scene = sample_scene(0, "iid")
    answers = {question.prompt(): f"{grounds(scene, question)}: {question.answer_text}"
               for question in make_questions(scene)}  # fmt: skip
    second = make_questions(scene)[1]
    answers[second.prompt()] = next(option for option in second.options if option != second.answer_text)

    def ask(self, question, **options):
        spans = [[start / 1e6, end / 1e6] for start, end in parse_spans(answers[question])]
        return Answer(question, answers[question], spans)

    monkeypatch.setattr(VideoSession, "ask", ask)


def test_demo_in_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--seed", "3", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    scene = sample_scene(3, "iid")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saven-demo"]
    with open_media(tmp_path / "saven-demo" / "iid-00000003.mp4") as media:
        assert (media.video_codec, media.audio_codec) == ("h264", "aac")
        assert media.duration == pytest.approx(scene.duration, abs=100_000)
    assert Image.open(tmp_path / "saven-demo" / "iid-00000003.png").size[0] == 2000
    questions = make_questions(scene)
    assert [question.question_type for question in questions] == list(PAPER_FORMATS)
    for number, question in enumerate(questions, 1):
        assert f"\n{number}. {question.text}\n   A. {question.options[0]}\n" in out
        assert f"\n   truth   {question.answer_text} ({question.answer})\n   moment  00:00:" in out
    assert out.count("\n   answer  ") == 5
    assert re.search(r"\n[0-5] of 5 right, where the best guess without the video gets 1\.\d\n", out)
    notice = load(device="cpu")[0].config.notice
    assert (f"Note: {notice}" in out) == bool(notice)


def test_answers_are_judged_and_drawn(tmp_path, oracle, model, capsys):
    made = demo(model, out=tmp_path)
    out = capsys.readouterr().out
    assert [answer.right for answer in made.answers] == [True, False, True, True, True] and made.right == 4
    assert "\n4 of 5 right" in out and out.count("[wrong]") == 1 and out.count("[right]") == 4
    last, row = made.answers[-1].question, made.answers[-1].span_row()
    assert row.true == row.answered == [(start / 1e6, end / 1e6) for start, end in last.evidence]
    assert row.answer == last.answer_text  # the picture leaves out what the answer rests on
    timed = made.answers[2]
    assert timed.span_row().asked == [(s / 1e6, e / 1e6) for s, e in parse_spans(timed.question.text)] != []
    assert made.answers[1].span_row().truth == made.answers[1].question.answer_text


def test_the_video_is_held_out_and_follows_from_the_seed(tmp_path, oracle, model):
    one = demo(model, out=tmp_path, progress=False)
    assert SPLITS[one.scene.split].held_out and one.video.name == "iid-00000000.mp4"
    assert demo(model, out=tmp_path, progress=False).scene == one.scene != sample_scene(1, "iid")


def test_the_processor_says_how_frames_are_sampled(tmp_path, model, monkeypatch):
    seen = {}

    def note(self, video, model, processor, **options):
        seen.update(options)
        raise RuntimeError("seen")

    monkeypatch.setattr(VideoSession, "__init__", note)
    with pytest.raises(RuntimeError, match="seen"):
        demo(model, out=tmp_path, progress=False)
    assert seen == {}


def test_bad_input_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    for words, said in ((["--seed", "-1"], "at least 0, not -1"), (["--out", str(tmp_path / "file")], "is a file")):
        assert main(["demo", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and len(captured.err.splitlines()) == 1 and said in captured.err


@needs_weights
def test_answers_come_through_the_connector(tmp_path, model):
    """Four videos are described in four ways; with a zeroed connector, which says the same of all, in one."""
    network, processor = model
    scenes = [scene for scene in (sample_scene(seed, "iid") for seed in range(20)) if scene.duration < 30_000_000][:4]
    paths = [tmp_path / f"{scene.video_id}.mp4" for scene in scenes]
    for scene, path in zip(scenes, paths, strict=True):
        write_video(scene, path)

    def answers() -> set[str]:
        sessions = [VideoSession(path, network, processor) for path in paths]
        return {session.ask("What is seen and heard, and when?", max_new_tokens=40).answer for session in sessions}

    assert len(answers()) == 4
    connector = network.model.resampler
    before = {name: tensor.clone() for name, tensor in connector.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in connector.parameters():
                parameter.zero_()
        assert len(answers()) == 1
    finally:
        connector.load_state_dict(before)


@needs_weights
@pytest.mark.slow
def test_most_answers_are_right(tmp_path, model):
    answers = [
        answer.right for seed in range(50) for answer in demo(model, out=tmp_path, seed=seed, progress=False).answers
    ]
    assert sum(answers) / len(answers) >= 0.85


@needs_weights
@pytest.mark.slow
def test_it_hears_under_a_black_picture(tmp_path, model):
    right = []
    for seed in range(12):
        scene, black = sample_scene(seed, "iid"), tmp_path / f"{seed}.black.mp4"
        write_video(scene, tmp_path / f"{seed}.mp4")
        blacken_picture(tmp_path / f"{seed}.mp4", black)
        session = VideoSession(black, *model)
        for question in make_questions(scene, ["heard_at", "when_heard", "heard_after_heard"]):
            right.append(session.ask(question.prompt()).answer.endswith(question.answer_text))
    assert len(right) > 20 and sum(right) / len(right) >= 0.65

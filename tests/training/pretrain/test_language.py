"""Pretraining of the tiny language model: what it is given to read, and that it learns from it."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from saven_hf.savenvideo import SAVEnVideoProcessor
from saven_hf.savenvideo.times import parse_times
from saven_hf.training.pretrain import language
from saven_hf.training.pretrain.language import (
    ASKING,
    IGNORED,
    NOTHING,
    Course,
    SampleDrawer,
    draw_timeline,
    pretrain_language,
    tiny_language_config,
)
from saven_hf.training.pretrain.loop import PretrainError
from saven_hf.training.pretrain.tokenizer import train_tokenizer
from saven_hf.world import sample_scene


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer(scenes=200)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|video|>", "<|image|>", "<|audio|>"]}, replace_extra_special_tokens=False
    )
    return tokenizer


def exact_timeline(scene, asked=()):
    return draw_timeline(scene, list(asked), np.random.default_rng(0), forget=0.0, blur=0.0)


def test_a_timeline_tells_what_the_scene_holds():
    scene = sample_scene(3)
    timeline = exact_timeline(scene)
    moments = (np.arange(len(timeline.rows)) + 0.5) * scene.duration / len(timeline.rows)
    for moment, row, times in zip(moments, timeline.rows, timeline.times, strict=True):
        picture, sound = scene.picture_at(moment), scene.sound_at(moment)
        values = [
            *(picture.kind.colour, picture.kind.shape, picture.copies, picture.motion, picture.place),
            *(picture.background, sound.kind.timbre, sound.kind.pitch, sound.glide, sound.pulses, sound.loudness),
        ]
        assert [language._ROWS[at][value] for at, value in enumerate(values)] == row.tolist()
        if scene.duration <= 30_000_000:
            assert times.tolist() == [picture.start, picture.end, sound.start, sound.end]


def test_a_window_does_not_see_beyond_its_edges():
    scene = next(one for one in map(sample_scene, range(50)) if one.duration > 32_000_000)
    times = exact_timeline(scene).times
    edge = scene.duration / 2
    first, second = times[: len(times) // 2], times[len(times) // 2 :]
    assert first.max() <= edge <= second[:, 1].min() and second.min() >= edge


def test_times_asked_for_come_last_and_as_they_are():
    scene = sample_scene(3)
    timeline = exact_timeline(scene, [1_234_000, 5_000_000])
    assert timeline.asked.sum() == 2 and timeline.asked[-2:].all()
    assert timeline.times[-2:].tolist() == [[1_234_000] * 4, [5_000_000] * 4]


def test_attributes_are_forgotten_as_often_as_asked():
    timeline = draw_timeline(sample_scene(3), [], np.random.default_rng(0), forget=0.5)
    assert 0.4 < (timeline.rows == NOTHING).mean() < 0.6


def test_samples_read_as_the_chat_template_writes_them(tokenizer):
    """What is pretrained on is the prompt that the whole model gets, token for token."""
    sample = SampleDrawer(tokenizer).draw(5, Course(1.0, (4, 6), ASKING, 0.0))
    text = tokenizer.decode([token for token in sample.ids])
    turns = text.split("<|im_start|>")[1:]
    messages = []
    for turn in turns:
        role, content = turn.split("\n", 1)
        messages.append({"role": role, "content": content.removesuffix("<|im_end|>\n")})
    template = SAVEnVideoProcessor.from_components(tokenizer).chat_template
    assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == text
    assert sample.ids.count(tokenizer.convert_tokens_to_ids("<|video|>")) == len(sample.timeline.rows)


def test_only_answers_are_learnt(tokenizer):
    sample = SampleDrawer(tokenizer).draw(5, Course(1.0, (4, 6), ASKING, 0.0))
    learnt = [token for token, label in zip(sample.ids, sample.labels, strict=True) if label != IGNORED]
    said = tokenizer.decode(learnt).split("<|im_end|>\n")
    answers = tokenizer.decode(sample.ids).split("<|im_start|>assistant\n")[1:]
    assert [answer.split("<|im_end|>")[0] for answer in answers] == said[:-1]
    assert [weight > 0 for weight in sample.weights] == [label != IGNORED for label in sample.labels]


def test_a_shift_moves_text_and_timeline_alike(tokenizer):
    drawer, moved = SampleDrawer(tokenizer), 0
    for number in range(12):
        plain = drawer.draw(number, Course(1.0, (4, 6), {"span_caption": 1.0}, 0.0))
        shifted = drawer.draw(number, Course(1.0, (4, 6), {"span_caption": 1.0}, 100.0))
        offsets = set((shifted.timeline.times - plain.timeline.times).ravel())
        assert len(offsets) == 1
        offset = offsets.pop()
        before, after = (parse_times(tokenizer.decode(one.ids)) for one in (plain, shifted))
        assert [time + offset for time in before] == after
        moved += offset > 0
    assert moved > 2


@pytest.mark.parametrize("course", language.CURRICULUM)
def test_every_course_gives_samples(tokenizer, course):
    drawer = SampleDrawer(tokenizer)
    for number in range(8):
        assert any(label != IGNORED for label in drawer.draw(number, course).labels)


def small(tokenizer, out, **settings):
    config = tiny_language_config(
        tokenizer,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return pretrain_language(
        out, tokenizer, batch_size=4, config=config, progress=False, **{"steps": 12, "learning_rate": 1e-2, **settings}
    )


def test_it_learns_and_loads(tokenizer, tmp_path):
    small(tokenizer, tmp_path, steps=16)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert len(losses) == 16 and np.mean(losses[-3:]) < np.mean(losses[:3]) - 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.model_type == "qwen2"
    assert len(tokenizer) <= model.config.vocab_size
    # Beside a Qwen2, AutoTokenizer would make of it a tokenizer that cuts times into digits.
    assert not list(tmp_path.glob("tokenizer*"))


def test_a_killed_run_goes_on_as_if_it_never_stopped(tokenizer, tmp_path):
    small(tokenizer, tmp_path / "whole")
    small(tokenizer, tmp_path / "parts", stop_after=5)
    assert not (tmp_path / "parts" / "config.json").exists()
    small(tokenizer, tmp_path / "parts")
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_of_another_run_is_refused(tokenizer, tmp_path):
    small(tokenizer, tmp_path, stop_after=2)
    with pytest.raises(PretrainError, match="learning_rate"):
        small(tokenizer, tmp_path, learning_rate=1e-3)

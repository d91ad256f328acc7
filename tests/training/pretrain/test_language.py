"""Pretraining of the tiny language model: what it is given to read, and that it learns from it."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from saven_hf.savenvideo import SAVEnVideoProcessor
from saven_hf.savenvideo.times import parse_times
from saven_hf.training.pretrain import language
from saven_hf.training.pretrain.language import (
    ALL,
    IGNORED,
    NOTHING,
    Batch,
    Course,
    SampleDrawer,
    TimelineCode,
    TimelineReader,
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
    return draw_timeline(scene, list(asked), np.random.default_rng(0), forget=0.0, blur=0.0, date_error=0.0)


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
    sample = SampleDrawer(tokenizer).draw(5, Course(1.0, (4, 6), ALL, 0.0))
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
    sample = SampleDrawer(tokenizer).draw(5, Course(1.0, (4, 6), ALL, 0.0))
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


def looks_of(tokenizer, number, kinds, sort, segments=(4, 6)):
    """Conversation `number`, and its looks of a sort with the moments `(n,)` that they lead to."""
    drawer = SampleDrawer(tokenizer)
    sample = drawer.draw(number, Course(1.0, segments, kinds, 100.0))
    first, found = len(drawer.user), []
    for look in sample.looks:
        assert set(sample.ids[look.first : look.last]) == {drawer.placeholder}
        if look.sort == sort:
            found.append((look.position, slice(look.first - first, look.last - first)))
    return sample, tokenizer.convert_ids_to_tokens(sample.ids), found


def words_at(tokenizer, sample, moments):
    """Tokens that name what is there at the moments."""
    words = language._words(tokenizer)
    return {
        token
        for row in set(sample.timeline.rows[moments].ravel())
        for token in tokenizer.convert_ids_to_tokens(words[row])
    }


def test_a_name_looks_to_what_it_names(tokenizer):
    names = right = 0
    for number in range(12):
        sample, tokens, looks = looks_of(tokenizer, number, {"open": 1.0}, "name")
        right += sum(tokens[position] in words_at(tokenizer, sample, moments) for position, moments in looks)
        names += len(looks)
    # A moment may have been forgotten, and "the pitch rises" names what other words tell of.
    assert names > 12 and right / names > 0.9


def test_a_time_looks_to_what_has_it(tokenizer):
    """From each token before one of a span's two times, three tokens each, to the moments within the span."""
    times = 0
    for number in range(12):
        sample, tokens, looks = looks_of(tokenizer, number, {"range": 1.0}, "time")
        assert len(looks) % 6 == 0
        assert all(any(sign.isdigit() for sign in tokens[position + 1]) for position, _ in looks)
        for position, moments in looks[::6]:
            start, end = parse_times(tokenizer.decode(sample.ids[position : position + 10]).split("<|im_end|>")[0])[:2]
            assert start <= sample.timeline.at[moments].min() and sample.timeline.at[moments].max() <= end
        times += len(looks)
    assert times > 72


def test_times_of_changes_look_to_what_changes(tokenizer):
    kinds = {"open": 1.0}
    samples = (looks_of(tokenizer, number, kinds, "time") for number in range(400))
    sample, tokens, looks = next(found for found in samples if "Ġearly" in found[1] or "Ġlate" in found[1])
    said = [(position, moments) for position, moments in looks if tokens[position] == "Ġat"]
    assert len(said) == 2
    for column, (position, moments) in zip((0, 2), said, strict=True):
        changed = parse_times(tokenizer.decode(sample.ids[position + 1 : position + 4]))[0]
        assert abs(np.median(sample.timeline.times[moments][:, column]) - changed) < 500_000


@pytest.mark.parametrize("kinds", [{"open": 1.0}, {"choice": 1.0}, {"span_caption": 1.0}, {"captions": 1.0}])
def test_words_look_to_what_they_are_said_of(tokenizer, kinds):
    """What names something of the world is said of moments that hold it; so are the ends of spans."""
    every = {token for row in language._words(tokenizer) for token in tokenizer.convert_ids_to_tokens(row)}
    right = said = 0
    for number in range(24):
        sample, tokens, looks = looks_of(tokenizer, number, kinds, "content")
        for position, moments in looks:
            if tokens[position + 1] in every:
                said += 1
                right += tokens[position + 1] in words_at(tokenizer, sample, moments)
        for position, _ in looks_of(tokenizer, number, kinds, "span")[2]:
            assert tokens[position].startswith(".")
    # A word may have a second meaning: "in the middle" is no place that a moment has.
    assert said > 24 and right / said > 0.9


def test_a_look_astray_is_dear(tokenizer):
    sample, _, _ = looks_of(tokenizer, 5, {"range": 1.0}, "name")
    width = len(sample.ids)
    there = torch.zeros(1, 4, width, width)
    for look in sample.looks:
        there[0, language.LOOKS[look.sort][1], look.position, look.first : look.last] = 1 / (look.last - look.first)
    looks = Batch.of([sample], 0).looks
    right = language._astray(looks, (there,) * 4)
    assert {sort: float(one) for sort, one in right.items()} == pytest.approx(
        dict.fromkeys(language.LOOKS, 0), abs=1e-3
    )
    astray = language._astray(looks, (there, there, there / 4, there / 2))
    # A name is told in two layers, of which one is astray.
    assert float(astray["name"]) == pytest.approx(np.log(4) / 2, abs=1e-3)
    assert float(astray["time"]) == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize("wrong", [{"num_hidden_layers": 3}, {"attn_implementation": "sdpa"}])
def test_a_model_that_cannot_be_told_where_to_look_is_refused(tokenizer, wrong):
    config = tiny_language_config(tokenizer, **{"num_hidden_layers": 4, **wrong})
    with pytest.raises(ValueError, match="set num_hidden_layers to at least 4, and attn_implementation='eager'"):
        TimelineReader(Qwen2ForCausalLM(config), tokenizer)


def test_directions_of_the_code_are_orthogonal(tokenizer):
    code = TimelineCode(tokenizer, 256)
    directions = torch.cat([code.table[1:], code.asked[None], code.times / language.TIME_SCALE, code.spoken])
    assert torch.allclose(directions @ directions.T, torch.eye(len(directions)), atol=1e-5)
    assert not code.table[NOTHING].any()
    with pytest.raises(ValueError, match="does not fit a width of 192: .* hidden_size of at least 250"):
        TimelineCode(tokenizer, 192)


def test_words_and_times_start_where_the_code_has_them(tokenizer):
    """The nearest words of a red circle's moment are red and circle; the nearest tokens of a time are its own."""
    code, embedding = TimelineCode(tokenizer, 256), torch.nn.Embedding(len(tokenizer), 256)
    torch.nn.init.normal_(embedding.weight, std=0.06)
    code.begin(embedding)
    embedding.requires_grad_(False)
    rows = torch.zeros(1, 11, dtype=torch.int64)
    rows[0, :2] = torch.tensor([language._ROWS[0]["red"], language._ROWS[1]["circle"]])
    times = torch.zeros(1, 4, dtype=torch.int64)
    moment = code(rows, times, torch.zeros(1)) - code(0 * rows, times, torch.zeros(1))
    nearest = (moment @ embedding.weight.T).topk(2).indices[0].tolist()
    assert set(tokenizer.convert_ids_to_tokens(nearest)) == {"Ġred", "Ġcircle"}

    seconds = {token: index for token, index in tokenizer.get_vocab().items() if token.isdigit() and len(token) == 2}
    spoken = language._phases(torch.tensor([3 * 60_000_000 + 37_500_000])) @ code.spoken
    scores = {token: float(spoken @ embedding.weight[index]) for token, index in seconds.items()}
    assert max(scores, key=scores.get) == "37"


def test_a_time_is_told_by_its_own_directions(tokenizer):
    code, rows, plain = TimelineCode(tokenizer, 256), torch.zeros(1, 11, dtype=torch.int64), torch.zeros(1)
    base = code(rows, torch.tensor([[5_000_000] * 4]), plain)
    for at in range(4):
        times = torch.tensor([[5_000_000] * 4])
        times[0, at] += 7_300_000
        parts = (code(rows, times, plain) - base) @ code.times.T
        moved = parts.view(4, -1).abs().amax(-1) > 1e-3
        assert moved.tolist() == [one == at for one in range(4)]


def small(tokenizer, out, **settings):
    config = tiny_language_config(
        tokenizer,
        intermediate_size=64,
        num_hidden_layers=4,
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


def test_processes_draw_what_one_draws(tokenizer, tmp_path):
    small(tokenizer, tmp_path / "none")
    small(tokenizer, tmp_path / "two", workers=2)
    one, other = ((tmp_path / name / "losses.jsonl").read_text() for name in ("none", "two"))
    assert one == other


def test_a_batch_asks_for_what_its_samples_say(tokenizer):
    """A target is a label, and stands where the token before it is."""
    drawer, pad = SampleDrawer(tokenizer), tokenizer.pad_token_id
    samples = [drawer.draw(number, Course(1.0, (2, 4), ALL, 0.0)) for number in range(3)]
    batch = Batch.of(samples, pad)
    said = [label for one in samples for label in one.labels if label != IGNORED]
    assert batch.targets.tolist() == said and (batch.weights > 0).all()
    assert batch.ids.flatten()[batch.supervised + 1].tolist() == said
    assert (batch.ids == drawer.placeholder).sum() == len(batch.rows) == len(batch.times) == len(batch.asked)


def test_a_folder_of_another_run_is_refused(tokenizer, tmp_path):
    small(tokenizer, tmp_path, stop_after=2)
    with pytest.raises(PretrainError, match="learning_rate"):
        small(tokenizer, tmp_path, learning_rate=1e-3)

"""Time features (TLP) and the resampler (AVTS): the paper's equations, and what each part of the keys is good for."""

import math

import pytest
import torch
from batches import gap
from huggingface_hub.errors import StrictDataclassFieldValidationError
from tiny import tiny_config, tiny_model, video_media
from transformers import BatchFeature

from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig
from saven_hf.savenvideo.connector_avts import (
    AVTSLayer,
    literal_cross_attention,
    sinusoidal_positions,
    window_positions,
)
from saven_hf.savenvideo.connector_base import (
    PICTURE,
    QUESTION,
    SOUND,
    TIME,
    Questions,
    TemporalLinearProjection,
    WindowIndex,
)
from saven_hf.savenvideo.layout import NO_TIME, Window


HOUR = 3_600_000_000
DURATION = 4_000_000


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def shaken_model(seed=0, scale=0.3, **settings):
    """A tiny model whose connector's weights are so large that every term counts."""
    model = tiny_model(**settings)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.model.named_parameters():
        if name.startswith(("resampler.", "temporal_projection.")):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def sample(frames=3, columns=4, seed=0):
    """Encoder outputs with times: picture `(frames, 4, 16)`, sound `(columns, 8, 16)` in a window of 4 s."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(frames, 4, 16, generator=generator),
        torch.arange(frames) * 1_000_000 + 500_000,
        torch.randn(columns, 8, 16, generator=generator),
        torch.arange(columns) * 160_000 + 87_500,
    )


def connect(model, picture, frame_times, sound, column_times, question=None, duration=DURATION, order=None):
    """The connector on one window that holds everything; `order`: in which order it lists frames and columns."""
    frames, columns = order or (list(range(len(picture))), list(range(len(sound))))
    undated = NO_TIME in frame_times.tolist() + column_times.tolist()
    window = Window(NO_TIME, NO_TIME) if undated else Window(0, duration)
    window.frames, window.columns = frames, columns
    questions = None
    if question is not None:
        times = torch.tensor([question])
        questions = Questions(times, torch.ones_like(times, dtype=torch.bool), torch.tensor([duration]))
    return model.model.resampler(
        picture,
        frame_times,
        sound,
        column_times,
        model.model.temporal_projection,
        WindowIndex.build([window], [duration], [0], "cpu"),
        questions,
    )


def tokens(*args, **kwargs):
    return connect(*args, **kwargs).window_tokens[0]


class TestTemporalLinearProjection:
    def test_is_a_linear_map_of_sinusoids_of_seconds_and_relative_position(self):
        tlp = shaken_model().model.temporal_projection
        time, duration = 5_025_431, 7_000_000
        sixtieths = [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30]
        hours = [3600 * part for part in (1, 2, 3, 6, 12, 24)]
        seconds = [0.02, 0.05, 0.1, 0.2, 0.5, *sixtieths, *(60 * part for part in sixtieths), *hours]
        angles = [2 * math.pi * time / round(period * 1e6) for period in seconds]
        feature = [math.sin(a) for a in angles] + [math.cos(a) for a in angles] + [time / duration]
        weight, bias = tlp.projection.weight.double(), tlp.projection.bias.double()
        expected = weight @ torch.tensor(feature, dtype=torch.float64) + bias
        found = tlp(torch.tensor([time]), torch.tensor([duration]))[0]
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)

    def test_phases_do_not_lose_precision_with_time(self):
        tlp = TemporalLinearProjection(tiny_config())
        count = len(tlp.periods)
        # Whole turns of each period later, its phase is bit for bit the same.
        for index, period in enumerate(tlp.periods):
            turns = max(1, 8 * HOUR // period)
            times = torch.tensor([1_234, 1_234 + turns * period])
            features = tlp.features(times, torch.tensor(0))
            assert torch.equal(features[0, [index, count + index]], features[1, [index, count + index]])
        assert tlp.periods[0] == 20_000 and tlp.periods[-1] == 86_400_000_000

    def test_unknown_times_give_zeros_and_unknown_durations_no_position(self):
        tlp = shaken_model().model.temporal_projection
        hidden = tlp(torch.tensor([NO_TIME, 0]), torch.tensor(DURATION))
        assert hidden[0].eq(0).all() and hidden[1].ne(0).all()
        assert tlp.features(torch.tensor([1_000_000]), torch.tensor([0]))[0, -1] == 0
        assert tlp.features(torch.tensor([1_000_000]), torch.tensor([DURATION]))[0, -1] == 0.25
        assert torch.isfinite(tlp(torch.tensor([-20_000]), torch.tensor(DURATION))).all()

    @pytest.mark.parametrize("how", ["float32", "cast batch", "autocast", "bfloat16 model"])
    def test_ten_milliseconds_an_hour_in_are_told_apart(self, how):
        media = video_media(frame_times=(3600.0, 3600.01, 3600.02, 3500.0), audio_seconds=0, duration=7200.0)
        batch = BatchFeature(media)
        model = tiny_model()
        if how in ("cast batch", "bfloat16 model"):
            batch = batch.to(torch.bfloat16)
            assert batch["frame_times"].dtype == batch["video_durations"].dtype == torch.int64
        if how == "bfloat16 model":
            model = model.to(torch.bfloat16)
        tlp = model.model.temporal_projection
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
            hidden = tlp(batch["frame_times"][0], batch["video_durations"]).float()
            out = model.get_video_features(**{**batch, "pixel_values_videos": batch["pixel_values_videos"]})
        # h has entries of size one; 10 ms are half a turn of the fastest sinusoid and little else.
        near, far = hidden[1] - hidden[0], hidden[3] - hidden[0]
        assert near.norm() > 0.03 * far.norm() and near.abs().max() > 0.02
        assert (hidden[2] - hidden[1]).abs().max() > 0.02
        reference = tiny_model().model.temporal_projection(media["frame_times"][0], media["video_durations"])
        assert gap(hidden, reference) < (0.02 if how == "bfloat16 model" else 1e-6)
        assert torch.isfinite(out.pooler_output[0]).all()

    def test_ten_milliseconds_change_what_the_resampler_says(self):
        model = shaken_model()
        for shift in (10_000, -10_000):
            media = video_media(frame_times=(3600.0, 3601.0), audio_seconds=0, duration=7200.0)
            before = model.get_video_features(**media).pooler_output[0]
            media["frame_times"][0, 1] += shift
            assert gap(before, model.get_video_features(**media).pooler_output[0]) > 1e-3


def cross_attention(queries, keys):
    """Equations 2 and 3, as loops over numbers."""
    outputs = []
    for query in queries:
        scores = [math.exp(sum(q * x for q, x in zip(query, key, strict=True))) for key in keys]
        alphas = [score / sum(scores) for score in scores]
        outputs.append([sum(a * key[i] for a, key in zip(alphas, keys, strict=True)) for i in range(len(query))])
    return outputs


def sinusoid(position, size):
    half = (size + 1) // 2
    angles = [position * 1e4 ** (-index / half) for index in range(half)]
    return ([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])[:size]


def add(*vectors):
    return [sum(numbers) for numbers in zip(*vectors, strict=True)]


def test_positions_run_from_the_start_of_the_window_to_its_end():
    times = torch.tensor([[3_000_000, 1_000_000, 2_000_000], [NO_TIME] * 3])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    start, end = torch.tensor([1_000_000, NO_TIME]), torch.tensor([3_000_000, NO_TIME])
    positions = window_positions(times, valid, start, end, num_queries=5)
    assert positions[0].tolist() == [4, 0, 2]
    assert positions[1, :2].tolist() == [0, 4]  # undated: by rank


class TestLiteralMode:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_cross_attention_is_equations_2_and_3(self, dtype):
        queries, keys = torch.randn(1, 5, 6).to(dtype), torch.randn(1, 7, 6).to(dtype)
        expected = torch.tensor(cross_attention(queries[0].tolist(), keys[0].tolist()), dtype=torch.float64)
        found = literal_cross_attention(queries, keys)[0]
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)

    def test_a_layer_adds_positions_and_nothing_else(self):
        layer = AVTSLayer(tiny_config(resampler_attention="literal"))
        assert not list(layer.parameters())
        queries, query_positions = torch.randn(2, 3, 6).double().unbind()
        keys, key_positions = torch.randn(2, 4, 6).double().unbind()
        expected = cross_attention((queries + query_positions).tolist(), (keys + key_positions).tolist())
        found = layer(queries[None], query_positions[None], None, keys[None], key_positions[None], None)[0]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)

    def test_the_whole_resampler_is_what_its_description_says(self):
        """One window of picture, sound and time, restated in plain loops over float64 numbers."""
        model = shaken_model(scale=0.1, resampler_attention="literal")
        resampler, tlp = model.model.resampler, model.model.temporal_projection
        picture, frame_times, sound, column_times = sample(frames=2, columns=2)
        caught = []
        resampler.output_norm.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        connect(model, picture, frame_times, sound, column_times)

        duration = torch.tensor(DURATION)
        modality = resampler.modality_embedding.double().tolist()
        keys, positions = [], []
        for states, times, mlp, learned, kind in (
            (picture, frame_times, resampler.visual_mlp, resampler.patch_position, PICTURE),
            (sound, column_times, resampler.audio_mlp, resampler.band_position, SOUND),
        ):
            projected = mlp(states).double().tolist()
            hidden_times = tlp(times, duration).double().tolist()
            placed = [sinusoid(3 * time / DURATION, 24) for time in times.tolist()]
            for row, hidden, place in zip(projected, hidden_times, placed, strict=True):
                for token, extra in zip(row, learned.double().tolist(), strict=False):
                    keys.append(add(token, modality[kind], hidden))
                    positions.append(add(place, extra))
            keys.extend(add(hidden, modality[TIME]) for hidden in hidden_times)
            positions.extend(placed)
        anchors = tlp(torch.tensor([DURATION * (2 * index + 1) // 8 for index in range(4)]), duration)
        queries = (resampler.queries.double() + anchors.double()).tolist()
        learned = resampler.query_position.double().tolist()
        query_positions = [add(sinusoid(index, 24), row) for index, row in enumerate(learned)]
        for _ in range(2):
            placed_queries = [add(query, place) for query, place in zip(queries, query_positions, strict=True)]
            placed_keys = [add(key, place) for key, place in zip(keys, positions, strict=True)]
            queries = cross_attention(placed_queries, placed_keys)
        torch.testing.assert_close(caught[0][0].double(), torch.tensor(queries).double(), rtol=0, atol=1e-5)


class TestKeys:
    @pytest.mark.parametrize("attention", ["projected", "literal"])
    @pytest.mark.parametrize("question_times", ["separate", "joint"])
    @pytest.mark.parametrize("fusion", ["both", "token", "add"])
    def test_permuting_tokens_together_with_their_times_changes_nothing(self, attention, question_times, fusion):
        scale = 0.05 if attention == "literal" else 0.3
        model = shaken_model(
            scale=scale, resampler_attention=attention, question_times=question_times, time_fusion=fusion
        )
        picture, frame_times, sound, column_times = sample()
        before = connect(model, picture, frame_times, sound, column_times, question=[1_000_000, 2_000_000])
        frames, columns = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
        moved = (picture[frames], frame_times[frames], sound[columns], column_times[columns])
        stored = connect(model, *moved, question=[1_000_000, 2_000_000])
        listed = connect(model, *sample(), question=[1_000_000, 2_000_000], order=(frames.tolist(), columns.tolist()))
        for after in (stored, listed):
            assert gap(before.window_tokens[0], after.window_tokens[0]) < 1e-5
            assert gap(before.question_tokens[0], after.question_tokens[0]) < 1e-5
        # The test can fail: tokens without their times. (Literal attention has no scale and hears little but time.)
        wrong = connect(model, picture[frames], frame_times, sound, column_times)
        assert attention == "literal" or gap(before.window_tokens[0], wrong.window_tokens[0]) > 1e-4

    def test_every_part_counts(self):
        model = shaken_model()
        picture, frame_times, sound, column_times = sample()
        unknown = (torch.full_like(frame_times, NO_TIME), torch.full_like(column_times, NO_TIME))
        full = tokens(model, picture, frame_times, sound, column_times)
        assert gap(full, tokens(model, picture, frame_times, sound[:0], column_times[:0])) > 1e-2
        assert gap(full, tokens(model, picture[:0], frame_times[:0], sound, column_times)) > 1e-2
        assert gap(full, tokens(model, picture, unknown[0], sound, unknown[1])) > 1e-2
        assert gap(full, tokens(model, picture, frame_times + 300_000, sound, column_times)) > 1e-2
        assert gap(full, tokens(model, picture, frame_times, sound, column_times + 300_000)) > 1e-2
        assert gap(full, tokens(model, picture, frame_times, sound, column_times, duration=2 * DURATION)) > 1e-2

    def caught_keys(self, fusion, shift=0):
        """Keys of one window: `(1, n, d)`, without patch and band positions."""
        model = shaken_model(time_fusion=fusion)
        picture, frame_times, sound, column_times = sample()
        caught = []
        model.model.resampler.key_norm.register_forward_hook(lambda module, args, output: caught.append(args[0][0]))
        connect(model, picture, frame_times + shift, sound, column_times + shift)
        return caught[0]

    def test_time_fusion_adds_time_to_tokens_or_makes_it_keys_or_both(self):
        add_, token, both = (self.caught_keys(fusion) for fusion in ("add", "token", "both"))
        pictures, sounds = 3 * 4, 4 * 8
        assert len(add_) == pictures + sounds
        assert len(token) == len(both) == pictures + 3 + sounds + 4
        content = torch.ones(len(token), dtype=torch.bool)
        content[pictures : pictures + 3] = content[pictures + 3 + sounds :] = False
        assert torch.equal(both[content], add_)
        assert torch.equal(both[~content], token[~content])
        # Under "token" the content is free of time; the rest is nothing but time.
        assert gap(token[content], both[content]) > 0.1
        later = self.caught_keys("token", shift=100_000)
        assert torch.equal(token[content], later[content])
        assert ((token - later)[~content].abs().amax(-1) > 1e-3).all()

    def test_picture_and_sound_are_balanced_whatever_their_numbers(self):
        """Twice the picture tokens (same content, same times) leave everything as it was."""
        picture, frame_times, sound, column_times = sample()
        twice = (picture.repeat(2, 1, 1), frame_times.repeat(2), sound, column_times)
        balanced, plain = (shaken_model(balance_modalities=balance, time_fusion="add") for balance in (True, False))
        question = [1_000_000]
        for read in (lambda out: out.window_tokens[0], lambda out: out.question_tokens[0]):
            before = read(connect(balanced, picture, frame_times, sound, column_times, question))
            assert gap(before, read(connect(balanced, *twice, question))) < 1e-5
            before = read(connect(plain, picture, frame_times, sound, column_times, question))
            assert gap(before, read(connect(plain, *twice, question))) > 1e-3

    def test_before_content_speaks_each_modality_has_the_same_weight(self):
        resampler = tiny_model().model.resampler
        groups = torch.tensor([[PICTURE] * 9 + [SOUND] * 3 + [TIME] * 5 + [SOUND] * 4])
        mask = torch.ones_like(groups, dtype=torch.bool)
        mask[0, -4:] = False
        weights = resampler._key_bias(groups, mask, torch.float32).softmax(-1)
        shares = [weights[groups == modality].sum().item() for modality in (PICTURE, SOUND, TIME)]
        assert shares == pytest.approx([1 / 3] * 3)
        assert weights[0, -4:].eq(0).all()

    @pytest.mark.parametrize("settings", [{"query_anchors": False}, {"time_periods": [10.0]}, {"resampler_layers": 1}])
    def test_options_of_shape_and_anchors(self, settings):
        out = tokens(shaken_model(**settings), *sample())
        assert out.shape == (4, 32) and torch.isfinite(out).all()

    def test_anchors_spread_the_queries_over_the_window(self):
        # Four queries that are alike: only what they are told about time sets them apart.
        spread = {}
        for anchors in (True, False):
            model = shaken_model(query_anchors=anchors)
            resampler = model.model.resampler
            resampler.queries.copy_(resampler.queries[:1].expand_as(resampler.queries))
            caught = []
            resampler.layers[0].self_attn_norm.register_forward_pre_hook(lambda _, args, c=caught: c.append(args[0]))
            connect(model, *sample())
            spread[anchors] = caught[0][0].std(0).max().item()
        assert spread[True] > 0.1 and spread[False] == 0

    def test_dropout_acts_in_training_only(self):
        model = shaken_model(resampler_dropout=0.5)
        assert torch.equal(tokens(model, *sample()), tokens(model, *sample()))
        model.train()
        assert gap(tokens(model, *sample()), tokens(model, *sample())) > 1e-3


class TestQuestions:
    def test_separate_window_tokens_do_not_know_the_question(self):
        model = shaken_model(question_times="separate")
        outs = [connect(model, *sample(), question=question) for question in (None, [0], [1_000_000, 3_000_000])]
        assert torch.equal(outs[0].window_tokens[0], outs[1].window_tokens[0])
        assert torch.equal(outs[1].window_tokens[0], outs[2].window_tokens[0])
        assert [len(part) for out in outs for part in out.question_tokens] == [1, 2]

    def test_joint_window_tokens_do(self):
        model = shaken_model(question_times="joint")
        outs = [connect(model, *sample(), question=question) for question in ([0], [1_000_000])]
        assert gap(outs[0].window_tokens[0], outs[1].window_tokens[0]) > 1e-3
        assert connect(model, *sample()).question_tokens == []

    @pytest.mark.parametrize("question_times", ["separate", "joint"])
    def test_question_tokens_read_time_and_medium(self, question_times):
        model = shaken_model(question_times=question_times)
        picture, frame_times, sound, column_times = sample()

        def read(*media, at=1_000_000):
            return connect(model, *media, question=[at]).question_tokens[0]

        full = read(picture, frame_times, sound, column_times)
        assert full.shape == (1, 32)
        assert gap(full, read(picture, frame_times, sound, column_times, at=3_000_000)) > 1e-2
        assert gap(full, read(picture + 1, frame_times, sound, column_times)) > 1e-2
        assert gap(full, read(picture, frame_times, sound + 1, column_times)) > 1e-2
        assert gap(full, read(picture, frame_times.flip(0), sound, column_times)) > 1e-3

    def test_pooled_keys_are_means_over_frames_and_seconds(self):
        model = shaken_model()
        picture, frame_times, sound, _ = sample(frames=2, columns=9)
        column_times = torch.arange(9) * 160_000 + 87_500  # six in the first second, three in the next
        pooled = connect(model, picture, frame_times, sound, column_times).pooled
        assert pooled.modality.tolist() == [PICTURE, PICTURE, SOUND, SOUND]
        assert pooled.times.tolist() == [500_000, 1_500_000, 487_500, 87_500 + 7 * 160_000]
        seen, heard = model.model.resampler.visual_mlp(picture), model.model.resampler.audio_mlp(sound)
        expected = torch.stack([*seen.mean(1), heard[:6].mean((0, 1)), heard[6:].mean((0, 1))])
        torch.testing.assert_close(pooled.states, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("fusion", ["add", "token", "both"])
    def test_what_question_times_attend_to(self, fusion):
        """The pooled keys of the medium, dated as `time_fusion` says, and their dates."""
        model = shaken_model(time_fusion=fusion)
        caught = []
        model.model.resampler.key_norm.register_forward_hook(lambda module, args, output: caught.append(args[0][0]))
        pooled = connect(model, *sample(), question=[1_000_000]).pooled
        modality = model.model.resampler.modality_embedding
        hidden = model.model.temporal_projection(pooled.times, torch.tensor(DURATION))
        content = pooled.states + modality[pooled.modality]
        expected = [content if fusion == "token" else content + hidden]
        if fusion != "add":
            expected.append(hidden + modality[TIME])
        torch.testing.assert_close(caught[1], torch.cat(expected))

    def test_joint_question_tokens_are_the_mean_of_what_the_windows_read(self):
        model = shaken_model(question_times="joint")
        picture, frame_times, sound, column_times = sample(frames=4, columns=4)
        times = torch.tensor([[1_000_000, 3_000_000]])
        questions = Questions(times, torch.ones_like(times, dtype=torch.bool), torch.tensor([DURATION]))
        windows = [Window(0, 2_000_000, [0, 1], [0, 1, 2, 3]), Window(2_000_000, DURATION, [2, 3], [])]
        both, first, second = (
            model.model.resampler(
                picture,
                frame_times,
                sound,
                column_times,
                model.model.temporal_projection,
                WindowIndex.build(part, [DURATION] * len(part), [0] * len(part), "cpu"),
                questions,
            ).question_tokens[0]
            for part in (windows, windows[:1], windows[1:])
        )
        assert gap(first, second) > 1e-2
        torch.testing.assert_close(both, (first + second) / 2, rtol=0, atol=1e-5)

    def test_undated_sound_pools_to_one_undated_key(self):
        model = shaken_model()
        picture, frame_times, sound, column_times = sample()
        unknown = torch.full_like(column_times, NO_TIME)
        pooled = connect(model, picture, frame_times, sound, unknown).pooled
        assert pooled.times[pooled.modality == SOUND].tolist() == [NO_TIME]

    @pytest.mark.parametrize("kind", ["mlp", "mlp_pool"])
    def test_without_attention_a_question_time_is_its_time_feature(self, kind):
        model = shaken_model(resampler_type=kind)
        found = connect(model, *sample(), question=[1_000_000]).question_tokens[0]
        hidden = model.model.temporal_projection(torch.tensor([1_000_000]), torch.tensor(DURATION))
        resampler = model.model.resampler
        torch.testing.assert_close(found, resampler.to_language_model(hidden + resampler.modality_embedding[QUESTION]))


class TestMLPConnector:
    def rows(self, model, *media):
        """What goes into the output norm: one row a token."""
        caught = []
        model.model.resampler.output_norm.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        connect(model, *media)
        return caught[0]

    def test_tokens_come_in_order_of_time_with_their_date_in_front(self):
        model = shaken_model(resampler_type="mlp", time_fusion="token")
        resampler, tlp = model.model.resampler, model.model.temporal_projection
        picture, _, sound, _ = sample(frames=2, columns=1)
        frame_times, column_times = torch.tensor([3_000_000, 1_000_000]), torch.tensor([2_000_000])
        rows = self.rows(model, picture, frame_times, sound, column_times)

        def date(time):
            return tlp(torch.tensor([time]), torch.tensor(DURATION)) + resampler.modality_embedding[TIME]

        seen = resampler.visual_mlp(picture) + resampler.modality_embedding[PICTURE]
        heard = resampler.audio_mlp(sound) + resampler.modality_embedding[SOUND]
        expected = [date(1_000_000), seen[1], date(2_000_000), heard[0], date(3_000_000), seen[0]]
        torch.testing.assert_close(rows, torch.cat(expected))

    def test_mlp_pool_averages_the_same_tokens(self):
        full = self.rows(shaken_model(resampler_type="mlp"), *sample(frames=2, columns=2))
        pooled = self.rows(shaken_model(resampler_type="mlp_pool"), *sample(frames=2, columns=2))
        assert len(full) == 2 * 5 + 2 * 9 and len(pooled) == 4
        torch.testing.assert_close(pooled, torch.stack([part.mean(0) for part in full.split(7)]))


@pytest.mark.parametrize(
    "wrong", [{"time_fusion": "twice"}, {"resampler_type": "avt"}, {"stc_padding": 2}, {"queries_per_window": "32"}]
)
def test_a_key_of_another_kind_is_refused(wrong):
    with pytest.raises(StrictDataclassFieldValidationError, match=next(iter(wrong))):
        SAVEnVideoConfig(**wrong)


def attention_at_start(initial_attention):
    """Share of the attention of a fresh first head, layer by layer, that query j of 12 gives to keys less than two
    queries away; keys are random but for their times."""
    settings = {"queries_per_window": 12, "resampler_hidden_size": 48, "resampler_heads": 2}
    resampler = tiny_model(**settings, initial_attention=initial_attention).model.resampler
    times = torch.linspace(0, 11, 60)
    positions = sinusoidal_positions(times, 48)
    queries = torch.randn(12, 48, generator=torch.Generator().manual_seed(0)) + sinusoidal_positions(
        torch.arange(12), 48
    )
    keys = torch.randn(60, 48, generator=torch.Generator().manual_seed(1)) + positions
    near = (times - torch.arange(12)[:, None]).abs() < 2
    shares = []
    for layer in resampler.layers:
        query, key = (projection(states)[:, :24] for projection, states in
                      ((layer.cross_attn.q_proj, queries), (layer.cross_attn.k_proj, keys)))  # fmt: skip
        shares.append(((query @ key.T / 24**0.5).softmax(-1) * near).sum(-1).mean().item())
    return shares


def test_a_fresh_query_looks_at_its_own_time():
    chance = 1 / 3
    assert min(attention_at_start("own_time")) > 1.5 * chance
    assert max(attention_at_start("random")) < 1.1 * chance


def test_what_was_loaded_is_not_started_anew(tmp_path):
    model = shaken_model(initial_attention="own_time")
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for name, value in model.model.resampler.state_dict().items():
        assert torch.equal(again.model.resampler.state_dict()[name], value)

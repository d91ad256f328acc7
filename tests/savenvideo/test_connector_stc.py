"""VideoLLaMA 2's connector: parity with its formulas, its grid, and what is ours of it (time, windows, order)."""

import pytest
import torch
from batches import gap, inputs_for, num_tokens
from kinds import STC_AS_PUBLISHED
from restated_stc import restated_audio_mlp, restated_stc
from test_connectors import connect, shaken_model
from tiny import tiny_config, tiny_model, video_media
from transformers import CLIPVisionConfig, SiglipVisionConfig

from saven_hf.savenvideo.layout import NO_TIME, TokenLayout, Window


PUBLISHED = STC_AS_PUBLISHED | {"resampler_hidden_size": 32}
VARIANTS = {
    "stc_connector": {"stc_padding": 1},
    "stc_connector_v35": {"stc_padding": 0},
    "stp_connector": {"stc_pool": True},
    "spatial_conv": {"stc_depth": 0, "stc_stride": (1, 2, 2), "stc_padding": 1, "resampler_hidden_size": 16},
    "spatial_pool": {"stc_depth": 0, "stc_stride": (1, 2, 2), "stc_pool": True, "resampler_hidden_size": 16},
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def vision(side: int, width: int = 16) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=14 * side,
        patch_size=14,
        vision_use_head=False,
    )


def sample(frames=4, side=2, columns=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(frames, side * side, 16, generator=generator),
        torch.arange(frames) * 1_000_000 + 500_000,
        torch.randn(columns, 8, 16, generator=generator),
        torch.arange(columns) * 160_000 + 87_500,
    )


def weights_of(resampler, prefix=""):
    return {
        name.removeprefix(prefix): value for name, value in resampler.state_dict().items() if name.startswith(prefix)
    }


class TestParity:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("side, frames", [(4, 4), (5, 2), (3, 6)])
    def test_the_picture_is_what_the_formulas_say(self, variant, side, frames):
        model = shaken_model(**PUBLISHED | VARIANTS[variant], vision_config=vision(side))
        config, media = model.config, sample(frames, side, columns=0)
        found = connect(model, *media, duration=frames * 1_000_000).window_tokens[0]
        expected = restated_stc(media[0], weights_of(model.model.resampler), config.stc_stride, config.stc_padding)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
        assert len(found) == TokenLayout.from_config(config).num_window_tokens(
            media[1].tolist(), [], frames * 1_000_000
        )

    def test_faint_channels_are_where_the_epsilon_of_the_norm_shows(self):
        model = shaken_model(**PUBLISHED)
        for name, parameter in model.model.resampler.named_parameters():
            if name.endswith("conv.weight"):
                parameter.mul_(3e-3)
        media = sample(2, columns=0)
        expected = restated_stc(media[0], weights_of(model.model.resampler))
        torch.testing.assert_close(connect(model, *media).window_tokens[0].double(), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("stages", [1, 3])
    def test_another_depth_and_width(self, stages):
        model = shaken_model(**PUBLISHED | {"stc_depth": stages, "resampler_hidden_size": 24})
        media = sample(2, columns=0)
        expected = restated_stc(media[0], weights_of(model.model.resampler))
        torch.testing.assert_close(connect(model, *media).window_tokens[0].double(), expected, rtol=0, atol=1e-4)

    def test_sound_is_a_two_layer_mlp_and_follows_the_picture(self):
        model = shaken_model(**PUBLISHED)
        picture, frame_times, sound, column_times = sample()
        found = connect(model, picture, frame_times, sound, column_times).window_tokens[0]
        names = {"up": "0", "down": "2"}
        mlp = {
            f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value
            for name, value in weights_of(model.model.resampler, "audio_mlp.").items()
        }
        expected = torch.cat(
            [restated_stc(picture, weights_of(model.model.resampler)), restated_audio_mlp(sound.flatten(0, 1), mlp)]
        )
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
        # Their order follows from the modality alone, whatever the times say.
        late = connect(model, picture, frame_times + 3_000_000, sound, column_times).window_tokens[0]
        assert torch.equal(found, late)

    def test_it_is_the_stage_of_timm(self):
        regnet = pytest.importorskip("timm.models.regnet", reason="timm needs torchvision; compared where both are")
        from timm.layers import LayerNorm2d

        model = shaken_model(**PUBLISHED)
        theirs = regnet.RegStage(
            depth=4, in_chs=16, out_chs=32, stride=1, dilation=1, act_layer=torch.nn.SiLU, norm_layer=LayerNorm2d
        ).eval()
        theirs.load_state_dict(model.model.resampler.s1.state_dict())
        pixels = torch.randn(2, 16, 5, 5)
        assert gap(theirs(pixels), model.model.resampler.s1(pixels)) < 1e-5


class TestSizes:
    def test_published_grids(self):
        """27 x 27 patches of 16 frames become 8 x 13 x 13 tokens in 2.1; 24 x 24 become 9 x 13 x 13 in 2.0."""
        common = {"resampler_type": "stc", "window_seconds": None, "window_frames": None, "time_tokens": False}
        times = [1_000_000 * second for second in range(16)]
        newer = TokenLayout(**common, patches_per_frame=729)
        assert newer.num_window_tokens(times, [], 16_000_000) == 1352
        older = TokenLayout(**common, patches_per_frame=576, stc_padding=1)
        assert older.num_window_tokens(times, [], 16_000_000) == 1521
        assert older.num_window_tokens(times[:8], [], 16_000_000) == 845
        sound = [160_000 * column for column in range(187)]
        assert newer.num_window_tokens(times, sound, 30_000_000) == 1352 + 1496

    def test_published_numbers_of_parameters(self):
        """377 M for SigLIP to Qwen2-7B, 489 M for CLIP to Mistral-7B."""
        from transformers import MistralConfig, Qwen2Config

        from saven_hf.savenvideo.connectors import build_connector

        sizes = {
            377: {"vision_config": vision(27, 1152), "text_config": Qwen2Config(hidden_size=3584)},
            489: {"vision_config": vision(24, 1024), "text_config": MistralConfig(hidden_size=4096)},
        }
        for millions, parts in sizes.items():
            width = parts["text_config"].hidden_size
            config = tiny_config(**PUBLISHED | parts | {"resampler_hidden_size": width, "has_audio_tower": False})
            with torch.device("meta"):
                connector = build_connector(config)
            assert round(sum(p.numel() for p in connector.parameters()) / 1e6) == millions

    @pytest.mark.parametrize("padding", [0, 1])
    @pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
    def test_no_frame_is_dropped(self, frames, padding):
        """Every frame moves the tokens, also the last of an odd number."""
        model = shaken_model(**PUBLISHED | {"stc_padding": padding})
        picture, times, sound, columns = sample(frames, columns=0)
        before = connect(model, picture, times, sound, columns).window_tokens[0]
        for frame in range(frames):
            changed = picture.clone()
            changed[frame] += 1
            assert gap(before, connect(model, changed, times, sound, columns).window_tokens[0]) > 1e-4, frame

    def test_an_image_is_seen_as_often_as_it_is_asked(self):
        picture, _, sound, columns = sample(1, columns=0)
        undated = torch.tensor([NO_TIME])
        once, often = (
            connect(shaken_model(**PUBLISHED, image_frames=count), picture, undated, sound, columns).window_tokens[0]
            for count in (1, 8)
        )
        assert len(once) == 1 and len(often) == 4
        assert gap(often, once.expand(4, -1)) < 1e-4
        repeated = connect(
            shaken_model(**PUBLISHED), picture.expand(8, -1, -1), torch.arange(8), sound, columns
        ).window_tokens[0]
        assert gap(often, repeated) < 1e-4

    def test_steps_name_the_frames_they_hold(self):
        layout = TokenLayout(resampler_type="stc", patches_per_frame=4)
        padded = TokenLayout(resampler_type="stc", patches_per_frame=4, stc_padding=1)
        window = Window(0, 9, [7, 8, 9])
        assert layout.stc_steps(window) == [[0, 1], [2]]
        assert padded.stc_steps(window) == [[0], [1, 2]]
        assert layout.stc_steps(Window(0, 9)) == []


class TestTime:
    def test_interleaved_by_time_with_dates_in_front(self):
        settings = {"time_fusion": "token", "token_order": "time", "question_times": "separate"}
        model = shaken_model(**PUBLISHED | settings)
        resampler, tlp = model.model.resampler, model.model.temporal_projection
        picture, _, sound, _ = sample(4, columns=2)
        frame_times, column_times = torch.tensor([0, 1, 2, 3]) * 1_000_000, torch.tensor([200_000, 2_400_000])
        found = connect(model, picture, frame_times, sound, column_times).window_tokens[0]
        assert len(found) == 2 * (1 + 1) + 2 * (1 + 8)
        seen = restated_stc(picture, weights_of(resampler)).float()
        heard = resampler.audio_mlp(sound)

        def date(time):
            hidden = tlp(torch.tensor([time]), torch.tensor(4_000_000))
            return resampler.time_projection(hidden) + resampler.time_embedding[0]

        # Steps at 0.5 s and 2.5 s, the means of their frames.
        expected = [
            date(200_000),
            heard[0],
            date(500_000),
            seen[:1],
            date(2_400_000),
            heard[1],
            date(2_500_000),
            seen[1:],
        ]
        torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-4)

    def test_time_added(self):
        plain, dated = (
            shaken_model(**PUBLISHED | {"time_fusion": fusion, "question_times": "separate"})
            for fusion in ("none", "add")
        )
        media = sample()
        before, after = (connect(model, *media).window_tokens[0] for model in (plain, dated))
        assert before.shape == after.shape and gap(before, after) > 1e-2
        moved = (media[0], media[1] + 250_000, media[2], media[3])
        assert torch.equal(before, connect(plain, *moved).window_tokens[0])
        assert gap(after, connect(dated, *moved).window_tokens[0]) > 1e-3

    def test_questions(self):
        model = shaken_model(**PUBLISHED | {"question_times": "separate"})
        found = connect(model, *sample(), question=[1_000_000, 3_000_000]).question_tokens[0]
        assert found.shape == (2, 32) and gap(found[0], found[1]) > 1e-3
        silent = shaken_model(**PUBLISHED)
        assert silent.model.temporal_projection is None
        assert connect(silent, *sample(), question=[1_000_000]).question_tokens == []

    def test_windows_are_convolved_one_at_a_time(self):
        model = shaken_model(**PUBLISHED | {"window_seconds": 2.0})
        media = video_media((0.5, 1.5, 2.5, 3.5), 0, 4.0)
        both = model.get_video_features(**media).pooler_output[0]
        assert len(both) == 2
        media["pixel_values_videos"][0, 3] = 0
        after = model.get_video_features(**media).pooler_output[0]
        assert torch.equal(both[0], after[0]) and gap(both[1], after[1]) > 1e-4


class TestTowers:
    def test_clip_gives_its_patches_without_the_class_token(self):
        clip = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
        media = video_media(audio_seconds=0)
        for layer in (-1, -2):
            model = tiny_model(**PUBLISHED, vision_config=clip, vision_feature_layer=layer)
            found = model.get_video_features(**media)
            pixels = (media["pixel_values_videos"][0].float() / 255 - 0.5) / 0.5
            states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[layer][:, 1:]
            assert gap(found.last_hidden_state, states) < 1e-5
            assert len(found.pooler_output[0]) == num_tokens(model, media) == 2

    def test_a_model_without_ears(self, tmp_path):
        model = tiny_model(**PUBLISHED, has_audio_tower=False)
        assert not any("audio" in name for name in model.state_dict())
        silent = inputs_for(model, [video_media(audio_seconds=0)])
        logits = model(**silent).logits
        with pytest.raises(ValueError, match="no audio tower"):
            model.get_video_features(**video_media())
        assert len(model.model.encoder_fingerprint()) == 16
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
        assert loaded.model.audio_tower is None and gap(logits, loaded(**silent).logits) < 1e-6


class TestConfig:
    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"stc_depth": 0, "resampler_hidden_size": 24}, "width of the vision tower"),
            ({"question_times": "joint"}, "joint"),
            ({"stc_stride": (2, 2)}, "three steps"),
            ({"image_frames": 0}, "image_frames"),
        ],
    )
    def test_what_does_not_go_together(self, settings, message):
        with pytest.raises(ValueError, match=message):
            tiny_config(**PUBLISHED | settings)

    def test_anchors_without_time(self):
        with pytest.raises(ValueError, match="query_anchors"):
            tiny_config(time_fusion="none", question_times="none")
        model = tiny_model(time_fusion="none", question_times="none", query_anchors=False)
        inputs = inputs_for(model, [video_media(questions=(1.0,))])
        before = model(**inputs).logits
        inputs["frame_times"] += 10_000
        assert model.model.temporal_projection is None and torch.isfinite(before).all()

    def test_order_of_the_mlp(self):
        by_time, by_modality = (
            connect(
                shaken_model(resampler_type="mlp", time_fusion="none", token_order=order), *sample()
            ).window_tokens[0]
            for order in ("time", "modality")
        )
        assert gap(by_time, by_modality) > 1e-2
        assert gap(by_time.sort(0)[0], by_modality.sort(0)[0]) < 1e-5
        assert gap(by_modality[:4], by_time[3 * 8 : 3 * 8 + 4]) < 1e-5  # three columns of sound come before 0.5 s


class TestBudget:
    """`stc_tokens_per_window`: fewer tokens than cells and patches, by means over time."""

    def tokens(self, budget, media, **settings):
        model = shaken_model(**PUBLISHED | settings | {"stc_tokens_per_window": budget})
        found = connect(model, *media, duration=4_000_000).window_tokens[0]
        layout = TokenLayout.from_config(model.config)
        assert len(found) == layout.num_window_tokens(media[1].tolist(), media[3].tolist(), 4_000_000)
        return found

    def test_half_of_them_are_means_of_the_picture_and_half_of_the_sound(self):
        media = sample(frames=8, side=4, columns=6)
        whole = self.tokens(None, media, vision_config=vision(4))  # 4 steps of 4 cells, 6 columns of 8 patches
        found = self.tokens(5, media, vision_config=vision(4))
        assert len(whole) == 64 and len(found) == 5
        torch.testing.assert_close(found[3], whole[16:40].mean(0))
        torch.testing.assert_close(found[4], whole[40:].mean(0))
        torch.testing.assert_close(self.tokens(4, media, vision_config=vision(4))[0], whole[:8].mean(0))

    def test_what_is_alone_has_them_all(self):
        picture, sound = sample(frames=8, side=4, columns=0), sample(frames=0, columns=6)
        whole = self.tokens(None, picture, vision_config=vision(4))
        torch.testing.assert_close(
            self.tokens(4, picture, vision_config=vision(4)), whole.unflatten(0, (4, 4)).mean(1)
        )
        torch.testing.assert_close(self.tokens(6, sound), self.tokens(None, sound).unflatten(0, (6, 8)).mean(1))

    def test_they_are_dated_and_stand_in_order_of_time(self):
        media = sample(frames=4, columns=2)
        dated = {"time_fusion": "both", "token_order": "time"}
        whole, found = self.tokens(None, media, **dated), self.tokens(4, media, **dated)
        # Sound at 0.09 and 0.25 s, steps at 1 and 3 s, each with the token of its date in front.
        parts = [whole[:9], whole[9:18], whole[18:20], whole[20:]]
        torch.testing.assert_close(found, torch.stack([part.mean(0) for part in parts]))

    def test_without_it_the_saved_form_is_what_it_was(self):
        plain, budgeted = (tiny_config(resampler_type="stc", stc_tokens_per_window=count) for count in (None, 6))
        for settings in (TokenLayout.from_config(plain).to_dict(), plain.media_settings()):
            assert "stc_tokens_per_window" not in settings
        assert TokenLayout.from_config(budgeted).to_dict()["stc_tokens_per_window"] == 6
        assert budgeted.media_settings()["stc_tokens_per_window"] == 6
        with pytest.raises(ValueError, match="at least 2"):
            tiny_config(stc_tokens_per_window=1)

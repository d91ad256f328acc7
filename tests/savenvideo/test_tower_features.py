"""`TowerFeatures` and `encode_towers`: training on them is training on the media, and they know whose they are."""

import pickle

import kinds
import numpy as np
import pytest
import torch
from batches import gap, logits_of
from tiny import AUDIO, IMAGE, SPEECH, VIDEO, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saven_hf import world
from saven_hf.savenvideo import SAVEnVideoProcessor, TowerFeatures
from saven_hf.savenvideo.clips import open_sound
from saven_hf.savenvideo.layout import NO_TIME
from saven_hf.savenvideo.media_errors import MediaError
from saven_hf.savenvideo.weights import is_sharded


SETTINGS = {"max_new_tokens": 5, "pad_token_id": 0, "suppress_tokens": [VIDEO, IMAGE, AUDIO]}
KINDS = {
    **kinds.KINDS,
    "add": {"time_fusion": "add"},
    "mlp with speech": {"resampler_type": "mlp", "speech_config": SPEECH},
}


def make(**settings):
    """A model, and a processor whose words are "0" ... "92"."""
    model = tiny_model(**settings)
    words = [*map(str, range(93)), "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unknown|>"]
    words += ["<|video|>", "<|image|>", "<|audio|>"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", additional_special_tokens=words[-3:]
    )
    assert tokenizer.convert_tokens_to_ids(["<|video|>", "<|image|>", "<|audio|>"]) == [VIDEO, IMAGE, AUDIO]
    return model, SAVEnVideoProcessor.from_components(tokenizer, config=model.config)


def waveform(seconds, seed=0):
    return (np.random.default_rng(seed).standard_normal(round(seconds * 16_000)) * 0.1).astype(np.float32)


def clip(seconds=9.0, count=12, seed=0, picture=True, sound=True, dated=True):
    """Windows of 4 s, cut again where they hold more than 4 frames; the sound straddles them."""
    video = {"duration": seconds}
    if picture:
        video["frames"] = np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
        if dated:
            video["frame_times"] = ((np.arange(count) + 0.5) * seconds / count).tolist()
    if sound:
        video |= {"audio": waveform(seconds, seed), "sampling_rate": 16_000}
    return video


CLIPS = {
    "both": clip,
    "no sound": lambda: clip(sound=False),
    "sound alone": lambda: clip(picture=False),
    "undated": lambda: clip(dated=False, sound=False),
    "late sound": lambda: {**clip(), "audio": waveform(3.0), "audio_start": 4.5},
    "one frame": lambda: clip(1.0, 1),
}
TEXTS = ["1 2 <|video|> 3 00:00:01.500 4", "5 <|video|> 6"]


def inputs(processor, videos, texts=TEXTS, **kwargs):
    return processor(text=texts, videos=videos, padding=True, return_tensors="pt", **kwargs)


class TestEncodeTowers:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", CLIPS)
    def test_the_model_sees_what_it_sees_of_the_media(self, name, kind):
        model, processor = make(**KINDS[kind])
        videos = [CLIPS[name](), clip(5.0, 3, seed=1)]
        direct = inputs(processor, videos)
        features = [model.encode_towers(video, processor) for video in videos]
        through = inputs(processor, features)
        assert torch.equal(direct["input_ids"], through["input_ids"])
        assert not {"pixel_values_videos", "input_features", "speech_features"} & set(through)
        for left, right in zip(logits_of(model, direct), logits_of(model, through), strict=True):
            assert gap(left, right) < 1e-5

    def test_what_it_says_of_itself(self):
        model, processor = make()
        features = model.encode_towers(clip(), processor, num_frames=12)
        assert features.picture.shape == (12, 4, 16) and features.sound.shape[1:] == (8, 16)
        assert features.frame_times.tolist() == [375_000 + 750_000 * index for index in range(12)]
        assert features.frame_times.dtype == features.column_times.dtype == torch.int64
        assert features.num_frames == 12 and features.audio_seconds == pytest.approx(9.0, abs=0.17)
        assert features.duration == 9_000_000
        assert features.encoder_hash == model.model.tower_fingerprint()
        assert features.sampling == {"sampling": "uniform", "num_frames": 12, "use_audio_in_video": True}
        assert not any(tensor.requires_grad for tensor in features.tensors.values())

    def test_missing_modalities_are_empty_and_have_their_shape(self):
        model, processor = make()
        silent, heard = (model.encode_towers(CLIPS[name](), processor) for name in ("no sound", "sound alone"))
        assert silent.sound.shape == (0, 8, 16) and heard.picture.shape == (0, 4, 16)
        undated = model.encode_towers(CLIPS["undated"](), processor)
        assert undated.frame_times.eq(NO_TIME).all()

    def test_no_more_than_a_window_is_encoded_at_a_time(self):
        model, processor = make()
        sizes = []
        model.model.vision_tower.register_forward_pre_hook(
            lambda _, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
        )
        assert model.encode_towers(clip(40.0, 80), processor).num_frames == 80
        assert max(sizes) <= 4 and sum(sizes) == 80

    def test_images_and_sounds(self):
        model, processor = make()
        picture = np.random.default_rng(5).integers(0, 256, (28, 28, 3), dtype=np.uint8)
        text = "1 <|image|> 2 <|audio|> 3"
        direct = processor(
            text=text, images=[picture], audio=[waveform(3.0)], sampling_rate=16_000, return_tensors="pt"
        )
        image = model.encode_towers([picture], processor)
        sound = model.encode_towers({"audio": waveform(3.0), "sampling_rate": 16_000}, processor)
        through = processor(text=text, images=[image], audio=[sound], return_tensors="pt")
        assert torch.equal(direct["input_ids"], through["input_ids"])
        assert gap(logits_of(model, direct)[0], logits_of(model, through)[0]) < 1e-5

    def test_a_video_in_the_place_of_a_sound_is_its_sound_alone(self):
        model, processor = make()
        features = model.encode_towers(clip(), processor)
        heard = [
            processor(text="1 <|audio|> 2", audio=[one], return_tensors="pt")
            for one in (features, features.without_picture())
        ]
        assert torch.equal(*(one["input_ids"] for one in heard))
        assert torch.equal(*(logits_of(model, one)[0] for one in heard))


class TestInTheModel:
    def test_mixed_with_media_and_memories(self):
        model, processor = make()
        videos = [clip(seed=seed, seconds=5.0 + seed) for seed in range(4)]
        texts = ["1 <|video|> 2 <|video|> 3", "4 <|video|> 5 <|video|>"]
        direct = inputs(processor, videos, texts)
        mixed = [
            videos[0],
            model.encode_towers(videos[1], processor),
            model.encode_video(videos[2], processor),
            model.encode_towers(videos[3], processor),
        ]
        for left, right in zip(
            logits_of(model, direct), logits_of(model, inputs(processor, mixed, texts)), strict=True
        ):
            assert gap(left, right) < 1e-5

    def test_the_connector_learns_what_it_learns_from_the_media(self):
        gradients = []
        for through_features in (False, True):
            model, processor = make()
            model.train()
            videos = [clip(), clip(5.0, 3, seed=1)]
            if through_features:
                videos = [model.encode_towers(video, processor) for video in videos]
            batch = inputs(processor, videos)
            model(**batch, labels=batch["input_ids"]).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for part in ("resampler.visual_mlp", "resampler.audio_mlp", "temporal_projection", "resampler.queries"):
            assert any(part in name and grad.abs().sum() > 0 for name, grad in gradients[1].items()), part
        for name, grad in gradients[0].items():
            assert gap(grad, gradients[1][name]) < 1e-5, name

    @pytest.mark.parametrize("extra", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}])
    def test_generate(self, extra):
        model, processor = make()
        videos = [clip(), clip(5.0, 3, seed=1)]
        results = []
        for batch in (videos, [model.encode_towers(video, processor) for video in videos]):
            torch.manual_seed(0)
            results.append(model.generate(**inputs(processor, batch), **{"do_sample": False, **SETTINGS, **extra}))
        assert torch.equal(*results)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_stored_in_half_precision(self, dtype):
        model, processor = make()
        features = model.encode_towers(clip(), processor)
        exact = logits_of(model, inputs(processor, [features], TEXTS[:1]))[0]
        half = logits_of(model, inputs(processor, [features.to(dtype=dtype)], TEXTS[:1]))[0]
        assert 0 < gap(exact, half) < 0.05

    def test_a_model_in_half_precision(self):
        model, processor = make()
        model = model.to(torch.bfloat16)
        features = model.encode_towers(clip(), processor)
        assert features.picture.dtype == features.sound.dtype == torch.bfloat16
        batches = (inputs(processor, [medium], TEXTS[:1]) for medium in (clip(), features))
        assert gap(*(logits_of(model, batch)[0] for batch in batches)) < 0.05


class TestControls:
    def test_without_picture_and_without_sound(self):
        model, processor = make()
        features = model.encode_towers(clip(), processor)
        silent, blind = features.without_sound(), features.without_picture()
        assert (silent.num_frames, len(silent.column_times)) == (12, 0)
        assert (blind.num_frames, len(blind.column_times)) == (0, len(features.column_times))
        for video, one in ((clip(sound=False), silent), (clip(picture=False), blind)):
            left, right = (logits_of(model, inputs(processor, [medium], TEXTS[:1]))[0] for medium in (video, one))
            assert gap(left, right) < 1e-5

    def test_nothing_left_is_refused(self):
        model, processor = make()
        features = model.encode_towers(clip(), processor).without_sound().without_picture()
        with pytest.raises(ValueError, match="neither a picture nor a sound"):
            inputs(processor, [features], TEXTS[:1])

    def test_a_shifted_clock_is_that_of_a_medium_that_comes_later(self):
        model, processor = make()
        moved = model.encode_towers(clip(), processor).shifted(2_500_000)
        late = {**clip(), "audio_start": 2.5, "duration": 11.5}
        late["frame_times"] = [time + 2.5 for time in late["frame_times"]]
        batches = [inputs(processor, [medium], TEXTS[:1]) for medium in (late, moved)]
        assert torch.equal(*(batch["input_ids"] for batch in batches))
        assert gap(*(logits_of(model, batch)[0] for batch in batches)) < 1e-5
        back = moved.shifted(-2_500_000)
        assert back.duration == 9_000_000 and back.frame_times[0] == 375_000

    def test_undated_frames_stay_undated_and_no_clock_ends_before_it_starts(self):
        model, processor = make()
        undated = model.encode_towers(CLIPS["undated"](), processor).shifted(7)
        assert undated.frame_times.eq(NO_TIME).all()
        with pytest.raises(ValueError, match=r"9\.0 s cannot move by -9\.0 s"):
            model.encode_towers(clip(), processor).shifted(-9_000_000)


class TestFingerprint:
    @pytest.mark.parametrize(
        ("name", "same"),
        [
            ("vision_tower.embeddings.patch_embedding.weight", False),
            ("audio_tower.encoder.layer_norm.weight", False),
            ("resampler.queries", True),
            ("temporal_projection.projection.bias", True),
            ("language_model.layers.0.mlp.up_proj.weight", True),
        ],
    )
    def test_of_the_towers_alone(self, name, same):
        model, processor = make()
        batch = inputs(processor, [model.encode_towers(clip(), processor)], TEXTS[:1])
        model(**batch)
        with torch.no_grad():
            dict(model.model.named_parameters())[name].view(-1)[0] += 1.0
        if same:
            model(**batch)
        else:
            own = model.model.tower_fingerprint()
            other = batch["mm_encoder_outputs"]["video"][0].encoder_hash
            with pytest.raises(ValueError, match=f"{other}.*{own}.*model.encode_towers"):
                model(**batch)

    @pytest.mark.parametrize(
        ("settings", "same"),
        [
            ({"window_seconds": 2.0, "queries_per_window": 7, "resampler_type": "mlp_pool"}, True),
            ({"time_fusion": "add", "tower_batch_size": 2}, True),
            ({"image_mean": (0.4, 0.5, 0.5)}, False),
            ({"vision_feature_layer": -2}, False),
        ],
    )
    def test_settings(self, settings, same):
        before, after = make()[0], make(**settings)[0]
        for part in ("vision_tower", "audio_tower"):
            getattr(after.model, part).load_state_dict(getattr(before.model, part).state_dict())
        assert (before.model.tower_fingerprint() == after.model.tower_fingerprint()) == same

    def test_a_cast_keeps_it(self):
        model = make()[0]
        before = model.model.tower_fingerprint()
        assert model.to(torch.bfloat16).model.tower_fingerprint() == before

    def test_another_layout_takes_the_same_features(self):
        model, processor = make()
        features = model.encode_towers(clip(), processor)
        other, other_processor = make(window_seconds=2.0, queries_per_window=7)
        left, right = (
            logits_of(other, inputs(other_processor, [medium], TEXTS[:1]))[0] for medium in (clip(), features)
        )
        assert gap(left, right) < 1e-5

    def test_other_preprocessing_does_not(self):
        model, processor = make()
        features = model.encode_towers(clip(), processor)
        with pytest.raises(ValueError, match="TowerFeatures were made with other preprocessing"):
            inputs(processor, [features], TEXTS[:1], resample=2)

    def test_sharded_towers_have_none(self):
        model = make()[0]
        weight = next(model.model.audio_tower.parameters())
        assert not is_sharded(model)
        weight.placements = ()  # as a DTensor has
        assert is_sharded(model)
        with pytest.raises(ValueError, match="sharded"):
            model.model.tower_fingerprint()


class TestFile:
    def test_round_trip(self, tmp_path):
        model, processor = make()
        features = model.encode_towers(clip(), processor).to(dtype=torch.bfloat16)
        features.save(tmp_path / "features")
        for other in (TowerFeatures.load(tmp_path / "features"), pickle.loads(pickle.dumps(features))):
            assert vars(other).keys() == vars(features).keys()
            for name, value in vars(features).items():
                same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b and type(a) is type(b)
                assert same(getattr(other, name), value), name
        assert [path.name for path in tmp_path.iterdir()] == ["features"]

    def test_another_kind_of_file(self, tmp_path):
        model, processor = make()
        model.encode_video(clip(), processor).save(tmp_path / "memory")
        with pytest.raises(ValueError, match="savenvideo-memory-1.*model.encode_towers"):
            TowerFeatures.load(tmp_path / "memory")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """11.2 s with a picture and a sound."""
    path = tmp_path_factory.mktemp("part") / "scene.mp4"
    world.write_video(world.sample_scene(seed=3, segments=4), path)
    return str(path)


class TestParts:
    """`start` and `end` of a file, whose clock stays the file's."""

    def test_only_what_lies_between(self, video):
        model, processor = make()
        whole = model.encode_towers(video, processor, fps=4.0)
        part = model.encode_towers({"path": video, "start": 3.0, "end": 7.5}, processor, fps=4.0)
        assert part.duration == whole.duration
        assert len(part.frame_times) == 18
        assert 3_000_000 <= part.frame_times.min() and part.frame_times.max() < 7_500_000
        # The last patch of the sound is filled up with silence.
        assert 3_000_000 <= part.column_times.min() and part.column_times.max() - 87_500 < 7_500_000
        few = processor(videos={"path": video, "start": 3.0, "end": 4.0}, num_frames=1000)
        assert few["frame_times"].min() >= 3_000_000 and few["frame_times"].max() < 4_000_000

    def test_features_of_a_part_are_the_part(self, video):
        model, processor = make()
        part = {"path": video, "start": 3.0}
        left, right = (
            logits_of(model, inputs(processor, [medium], TEXTS[:1], num_frames=5))[0]
            for medium in (part, model.encode_towers(part, processor, num_frames=5))
        )
        assert gap(left, right) < 1e-5

    def test_its_sound_is_a_stretch_of_the_whole(self, video):
        with (
            open_sound(video, None, 16_000) as whole,
            open_sound({"path": video, "start": 2.25, "end": 4}, None, 16_000) as part,
        ):
            assert part.num_samples == 28_000 and part.sound_start == 2_250_000
            first = round((part.sound_start - whole.sound_start) * 0.016)
            samples = part.samples(0, part.num_samples)
            assert torch.equal(samples, whole.samples(0, whole.num_samples)[first : first + len(samples)])
            assert torch.equal(part.samples(100, 300), samples[100:300])

    @pytest.mark.parametrize("part", [{"start": 600.0}, {"start": 5.0, "end": 4.0}, {"end": 0.0}, {"start": -1.0}])
    def test_nothing_in_it(self, video, part):
        with pytest.raises(MediaError, match="mend 'start' and 'end'"):
            make()[1](videos={"path": video, **part})

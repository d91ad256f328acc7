"""The speech tower: Whisper's own features and encoder over tracks of any length, beside BEATs in everything."""

import numpy as np
import pytest
import torch
from batches import gap, inputs_for, logits_of
from clip import render
from test_connectors import shaken_model
from test_from_components import CONNECTOR, beats, language_model, same_weights, siglip_vision
from test_tower_features import clip, inputs, make, waveform
from tiny import QFORMER, SPEECH, tiny_model, video_media
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from saven_hf.savenvideo.feature_extraction_speech import SAVEnVideoSpeechFeatureExtractor
from saven_hf.savenvideo.layout import NO_TIME, speech_column_times
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from saven_hf.training.cache import FeatureCache, build_cache, list_media
from saven_hf.training.stages import apply_stage


def extractor(**settings):
    return SAVEnVideoSpeechFeatureExtractor(**{"feature_size": 12, "chunk_length": 2, **settings})


class TestFeatures:
    @pytest.mark.parametrize("mels", [80, 128])
    def test_a_window_is_whispers_own(self, mels):
        track = waveform(31.0)
        found = SAVEnVideoSpeechFeatureExtractor(feature_size=mels)(track, 16_000, return_tensors="pt")
        whisper = WhisperFeatureExtractor(feature_size=mels)
        assert found["speech_features"].shape == (1, 2, 3000, mels)
        for window, samples in enumerate((track[:480_000], track[480_000:])):
            own = whisper(samples, sampling_rate=16_000, return_tensors="pt")["input_features"][0].T
            valid = found["speech_features_mask"][0, window]
            assert torch.equal(found["speech_features"][0, window][valid], own[valid])
        assert found["speech_features_mask"].sum(-1).tolist() == [[3000, 100]]
        assert found["speech_times"].tolist() == [[0, 30_000_000]]

    def test_columns_hold_every_sample(self):
        for samples in (1, 1599, 1600, 1601, 31_999, 32_000, 32_001, 70_000):
            found = extractor()(np.ones(samples, np.float32) * 0.1, 16_000, start_times=[7], return_tensors="pt")
            columns = speech_column_times(
                found["speech_times"][0].tolist(), found["speech_features_mask"][0].sum(-1).tolist()
            )
            assert len(columns) == -(-samples // 1600)
            assert columns == extractor().column_times(samples, 7)

    def test_whole_windows_count_their_silence(self):
        found = extractor(whole_windows=True)(waveform(2.5), 16_000, return_tensors="pt")
        assert found["speech_features_mask"].all() and found["speech_features"].shape[1] == 2

    def test_tracks_of_a_batch_do_not_see_one_another(self):
        tracks = [waveform(3.0, 1), waveform(0.4, 2)]
        both = extractor()(tracks, 16_000, start_times=[0, None], return_tensors="pt")
        alone = extractor()(tracks[1], 16_000, return_tensors="pt")
        assert torch.equal(both["speech_features"][1, 0, :40], alone["speech_features"][0, 0])
        assert both["speech_times"].tolist() == [[0, 2_000_000], [NO_TIME, NO_TIME]]

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match="takes 16000 Hz: resample"):
            extractor()(waveform(1.0), 8_000)
        with pytest.raises(ValueError, match="Track 0 of the sound is empty"):
            extractor()([np.zeros(0, np.float32)], 16_000)
        with pytest.raises(ValueError, match="Got 2 start times for 1 tracks"):
            extractor()(waveform(1.0), 16_000, start_times=[0, 1])
        with pytest.raises(ValueError, match="10 ms apart"):
            extractor(hop_length=80)


class TestTower:
    def test_what_is_padding_is_whispers_silence(self):
        """The encoder sees what it would see of the track as transformers pads it, whatever is stored there."""
        model, processor = make(**QFORMER)
        track = waveform(1.23)
        data = processor.speech_extractor(track, 16_000, return_tensors="pt")
        own = WhisperFeatureExtractor(feature_size=12, chunk_length=2)(
            track, sampling_rate=16_000, return_tensors="pt"
        )
        caught = []
        model.model.speech_tower.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        data["speech_features"] = torch.nn.functional.pad(data["speech_features"], (0, 0, 0, 20), value=torch.nan)
        data["speech_features_mask"] = torch.nn.functional.pad(data["speech_features_mask"], (0, 20))
        medium = {**data, "video_durations": torch.tensor([1_230_000])}
        assert torch.isfinite(model.get_video_features(**medium).pooler_output[0]).all()
        assert gap(caught[0], own["input_features"]) < 1e-5

    def test_silence_alone_stays_silence(self):
        model, processor = make(**QFORMER)
        data = processor.speech_extractor(np.zeros(8_000, np.float32), 16_000, return_tensors="pt")
        caught = []
        model.model.speech_tower.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        model.get_video_features(**data)
        assert caught[0].eq(-1.5).all()

    @torch.no_grad()
    def test_it_is_heard_by_every_connector_that_takes_it(self):
        for kind in ("avts", "mlp", "mlp_pool", "causal_qformer"):
            settings = QFORMER if kind == "causal_qformer" else {"resampler_type": kind, "speech_config": SPEECH}
            model = shaken_model(**settings)
            medium = video_media(speech=True)
            before = model.get_video_features(**medium).pooler_output[0]
            medium["speech_features"] = medium["speech_features"] + 1.0
            medium["speech_features"][:, :, ::3] -= 1.0
            assert gap(before, model.get_video_features(**medium).pooler_output[0]) > 1e-4, kind

    def test_a_model_without_it_says_so(self):
        with pytest.raises(ValueError, match="this model has no speech tower"):
            tiny_model().get_video_features(**video_media(speech=True))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda features: features[..., :-1], r"expected \(media, windows, frames, 12\)"),
            (lambda features: torch.cat([features, features], 2), "400 frames; the speech tower takes at most 200"),
            (lambda features: features[:, :, :15], "whole columns of 10"),
        ],
    )
    def test_features_of_another_shape(self, change, message):
        medium = video_media(speech=True)
        medium["speech_features"] = change(medium["speech_features"])
        medium["speech_features_mask"] = torch.ones(medium["speech_features"].shape[:-1], dtype=torch.bool)
        with pytest.raises(ValueError, match=message):
            tiny_model(**QFORMER).get_video_features(**medium)

    @pytest.mark.parametrize("freeze", [True, False])
    def test_frozen_or_not(self, freeze):
        model = tiny_model(**QFORMER, freeze_speech=freeze).train()
        learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any("speech_tower.layers" in name for name in learns) == (not freeze)
        assert model.model.speech_tower.training == (not freeze)
        model.get_video_features(**video_media(speech=True)).pooler_output[0].sum().backward()
        assert (model.model.speech_tower.conv1.weight.grad is None) == freeze

    def test_a_stage_of_pictures_does_not_train_its_projection(self):
        visual, audio = (apply_stage(tiny_model(**QFORMER), stage) for stage in ("align-visual", "align-audio"))
        assert not visual.model.resampler.speech_mlp.weight.requires_grad
        assert audio.model.resampler.speech_mlp.weight.requires_grad
        assert not audio.model.speech_tower.conv1.weight.requires_grad

    def test_its_weights_are_part_of_the_fingerprints(self):
        model = tiny_model(**QFORMER)
        before = model.model.tower_fingerprint(), model.model.encoder_fingerprint()
        with torch.no_grad():
            model.model.speech_tower.conv1.weight.add_(0.5)
        after = model.model.tower_fingerprint(), model.model.encoder_fingerprint()
        assert before[0] != after[0] and before[1] != after[1]


class TestProcessor:
    def test_it_comes_back_as_it_was_saved(self, tmp_path):
        model, processor = make(**QFORMER)
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert loaded.speech_extractor.to_dict() == processor.speech_extractor.to_dict()
        assert loaded.preprocessing_hash() == processor.preprocessing_hash()
        assert "speech_features" in loaded.model_input_names
        left, right = inputs(processor, [clip(), clip(3.0, 2)]), inputs(loaded, [clip(), clip(3.0, 2)])
        assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)

    def test_other_features_are_another_preprocessing(self):
        _, processor = make(**QFORMER)
        _, other = make(**QFORMER)
        other.speech_extractor.dither = 0.5
        _, deaf = make(**{**QFORMER, "speech_config": None})
        assert len({one.tower_preprocessing_hash() for one in (processor, other, deaf)}) == 3

    def test_sound_straddles_windows_of_the_model_and_of_the_tower(self):
        model, processor = make(**QFORMER)
        for start in (0.0, 1.13, -0.02):
            video = {**clip(9.0), "audio": waveform(7.4), "audio_start": start}
            memory = model.encode_video(video, processor)
            direct = model.get_video_features(
                **{
                    name: value
                    for name, value in inputs(processor, [video], ["<|video|>"]).items()
                    if "_ids" not in name and name != "attention_mask" and not name.startswith("query")
                }
            ).pooler_output[0]
            assert gap(memory.window_tokens, direct) < 1e-5

    def test_rates_that_differ_are_refused(self):
        _, processor = make(**QFORMER)
        with pytest.raises(ValueError, match="a medium is read at one rate"):
            type(processor)(
                processor.video_processor,
                processor.feature_extractor,
                processor.tokenizer,
                speech_extractor={"sampling_rate": 8_000, "hop_length": 80},
            )


def test_from_components(tmp_path):
    folders = {name: tmp_path / name for name in ("vision", "audio", "text", "speech")}
    torch.manual_seed(0)
    siglip_vision(folders["vision"])
    beats(folders["audio"])
    language_model(folders["text"])
    whisper = WhisperForConditionalGeneration(WhisperConfig(**SPEECH))
    whisper.save_pretrained(folders["speech"])
    settings = {**CONNECTOR, "resampler_type": "causal_qformer", "qformer_rows": 9, "window_seconds": 2.0}
    model = SAVEnVideoForConditionalGeneration.from_components(**folders, **settings)
    assert same_weights(whisper.model.encoder, model.model.speech_tower)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert not model.model.speech_tower.conv1.weight.requires_grad
    model.save_pretrained(tmp_path / "model")
    loaded, info = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert same_weights(model, loaded) and not info["missing_keys"] and not info["unexpected_keys"]
    with pytest.raises(ValueError, match="expected 'whisper'"):
        SAVEnVideoForConditionalGeneration.from_components(**{**folders, "speech": folders["text"]}, **settings)


def test_the_cache_keeps_it(tmp_path):
    model, processor = make(**QFORMER)
    path = tmp_path / "media" / "clip.mp4"
    path.parent.mkdir()
    render(path)
    build_cache(list_media(path.parent), tmp_path / "cache", model, processor, progress=False)
    cached = FeatureCache(tmp_path / "cache")[path]
    direct = model.encode_towers(path, processor)
    assert len(direct.speech_times) > 10 and direct.speech.shape[1:] == (5, 20)
    for name, tensor in direct.tensors.items():
        assert torch.equal(tensor, getattr(cached, name)), name
    cached.save(tmp_path / "features")
    again = type(cached).load(tmp_path / "features")
    assert torch.equal(again.speech, direct.speech)
    assert not len(again.without_sound().speech_times)
    moved = again.shifted(1_000_000)
    assert torch.equal(moved.speech_times, direct.speech_times + 1_000_000)


def test_quantization_leaves_it_alone(tmp_path):
    bitsandbytes = pytest.importorskip(
        "bitsandbytes", reason="needs bitsandbytes: pip install 'saven-hf[quantization]'"
    )
    from test_quantization import wide_model

    text = wide_model().config.text_config
    tiny_model(**QFORMER, text_config=text).save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = SAVEnVideoForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=settings, device_map="cpu"
    )
    names = {name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    assert len(names) == 2 * 7 and all("language_model" in name for name in names)
    assert torch.isfinite(logits_of(model, inputs_for(model, [video_media(speech=True)]))[0]).all()

"""VideoLLaMA 2's preprocessing, held against its description in plain steps: Pillow, the ffmpeg command line."""

import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from kinds import STC_AS_PUBLISHED
from media_factory import (
    FFMPEG,
    NO_FFMPEG,
    cfr_25,
    ffmpeg,
    image_file,
    silent_video,
    sound_file,
    write_wav,
)
from test_processing_savenvideo import tokenizer
from tiny import tiny_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor, kaldi_fbank
from saven_hf.savenvideo.layout import NO_TIME
from saven_hf.savenvideo.media_errors import UnsupportedMediaError
from saven_hf.savenvideo.processing_savenvideo import SAVEnVideoProcessor
from saven_hf.savenvideo.published_videollama2 import TRACK_SAMPLES, clip_samples, frame_indices


SIDE, FRAMES = 56, 4
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason=NO_FFMPEG)


def processor(crop=False, **settings) -> SAVEnVideoProcessor:
    config = tiny_config(**STC_AS_PUBLISHED | settings)
    return SAVEnVideoProcessor.from_components(
        tokenizer(),
        config=config,
        feature_extractor=SAVEnVideoBeatsFeatureExtractor(patches_per_window=187, fbank_dtype="bfloat16"),
        size={"height": SIDE, "width": SIDE},
        num_frames=FRAMES,
        preprocessing="videollama2",
        do_center_crop=crop or None,
    )


def noisy(folder, seconds):
    """A video of a test picture with noise. FLAC, because decoders of AAC make noise up, each its own."""
    sources = [f"testsrc=size=64x48:rate=10:duration={seconds}", f"anoisesrc=d={seconds}:r=44100:a=0.3:seed=3"]
    inputs = [part for source in sources for part in ("-f", "lavfi", "-i", source)]
    ffmpeg(*inputs, "-pix_fmt", "yuv420p", "-c:a", "flac", "-ac", 2, folder / "noisy.mkv")
    return folder / "noisy.mkv"


def all_frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def ffmpeg_sound(path):
    """As `load_audio_from_video` calls it: mono 16-bit samples at 16 kHz."""
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(path), "-vn", "-acodec", "pcm_s16le", "-ac", "1"]
    done = subprocess.run([*command, "-ar", "16000", "-f", "s16le", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.int16).astype(np.float32) / 32768.0


def restated_track(waveform):
    """pytorchvideo's ConstantClipsPerVideoSampler(2, 8), then 30 s with silence behind."""
    seconds = len(waveform) / 16000
    step = Fraction(Fraction(max(seconds - Fraction(2), 0)), 8)
    clips = [waveform[int(step * i * 16000) : int((step * i + 2) * 16000)] for i in range(8)]
    track = np.concatenate(clips)
    return np.pad(track, (0, 480_000 - len(track)))


def restated_features(track):
    fbank = kaldi_fbank(torch.from_numpy(track.astype(np.float32)))
    assert fbank.shape == (2998, 128)
    return (fbank.to(torch.bfloat16).float()[:2992] - 15.41663) / (2 * 6.55582)


class TestChoices:
    def test_frames_are_the_middles_of_equal_parts_by_index(self):
        # (N - 1) / n = 24.75: middles at 12.375, 37.125, 61.875 and 86.625.
        assert frame_indices(100, 4) == [12, 37, 62, 87]
        assert frame_indices(1, 4) == [0, 0, 0, 0]
        assert frame_indices(3, 4) == [0, 1, 1, 2]
        assert frame_indices(17, 8) == [1, 3, 5, 7, 9, 11, 13, 15]

    def test_sound_is_eight_clips_of_two_seconds(self):
        assert clip_samples(160_000) == [(16_000 * i, 16_000 * i + 32_000) for i in range(8)]
        hour = clip_samples(3600 * 16_000)
        assert sum(last - first for first, last in hour) == 16 * 16_000
        assert hour[1][0] == int(Fraction(3598, 8) * 16_000) and hour[-1][1] < 3600 * 16_000 * 0.9
        assert clip_samples(24_000) == [(0, 24_000)] * 8  # 1.5 s, eight times

    def test_a_track_is_what_187_columns_read(self):
        assert 1 + (TRACK_SAMPLES - 400) // 160 == 187 * 16
        assert SAVEnVideoBeatsFeatureExtractor(patches_per_window=187).num_patches(TRACK_SAMPLES) == 187


@needs_ffmpeg
class TestVideos:
    @pytest.mark.parametrize("crop", [False, True])
    def test_frames_are_those_of_pillow(self, tmp_path, crop):
        path = cfr_25(tmp_path).path
        found = processor(crop)(videos=path)["pixel_values_videos"][0]
        frames = all_frames(path)
        part = (len(frames) - 1) / FRAMES
        chosen = [frames[round(part * (index + 0.5) + 1e-6)] for index in range(FRAMES)]
        if crop:
            reference = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
        else:
            reference = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=3)
        expected = reference(chosen, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
        assert found.dtype == torch.uint8 and found.shape == (FRAMES, 3, SIDE, SIDE)
        # Two builds of FFmpeg turn YUV into RGB with a rounding of their own.
        assert (found.float() - expected.float()).abs().max() <= 2
        assert (found.float() - expected.float()).abs().mean() < 0.2

    @pytest.mark.parametrize("seconds", [1.3, 12.0, 20.0])
    def test_sound_is_sixteen_seconds_and_silence_and_none_of_it_masked(self, tmp_path, seconds):
        path = noisy(tmp_path, seconds)
        own = processor()
        batch = own(videos=path)
        assert batch["input_features"].shape == (1, 1, 2992, 128) and batch["input_features_mask"].all()
        assert batch["audio_times"].tolist() == [[NO_TIME]]
        track = restated_track(ffmpeg_sound(path))
        settings = own.video_processor.settings()
        with own.video_processor.open(own.video_processor.list_sources(path, settings)[0], settings) as clip:
            heard = clip.samples(0, clip.num_samples).numpy()
        # Two builds of FFmpeg round to 16 bit at their own place.
        assert np.abs(heard - track[:TRACK_SAMPLES]).max() <= 2.5 / 32768
        expected = restated_features(track)
        assert (batch["input_features"][0, 0] - expected).abs().mean() < 1e-3

    def test_tokens_and_stream(self, tmp_path):
        path = cfr_25(tmp_path).path
        own = processor()
        batch = own(text="<|video|>", videos=path, return_tensors="pt")
        cells = 2 * (28 // 28) ** 2
        assert (batch["input_ids"] == own.video_token_id).sum() == cells * 1 + 1496
        assert "query_times" not in batch
        [chunk] = list(own.stream_video(path))
        for name in ("pixel_values_videos", "input_features", "audio_times"):
            assert torch.equal(chunk[name], batch[name])

    def test_nothing_is_made_up_for_a_video_without_sound(self, tmp_path):
        batch = processor()(videos=silent_video(tmp_path).path)
        assert "input_features" not in batch

    def test_the_same_twice_and_ours_with_one_word(self, tmp_path):
        path = cfr_25(tmp_path).path
        own = processor()
        first, second = own(videos=path), own(videos=path)
        assert all(torch.equal(first[name], second[name]) for name in first)
        whole = own(videos=path, preprocessing="whole")
        assert whole["audio_times"].tolist() == [[0]]
        assert whole["input_features"].shape[2] < 2992 and not torch.equal(
            whole["pixel_values_videos"], first["pixel_values_videos"]
        )
        assert own.preprocessing_hash() != own.preprocessing_hash(preprocessing="whole")

    def test_parts_are_cut_by_time(self, tmp_path):
        clip = cfr_25(tmp_path)
        batch = processor()(videos={"path": clip.path, "start": 1.0, "end": 2.0})
        assert all(1_000_000 <= time < 2_000_000 for time in batch["frame_times"][0].tolist())


class TestSounds:
    def test_thirty_seconds_of_a_sound(self, tmp_path):
        noise = np.random.default_rng(0).standard_normal(40 * 16_000) * 0.1
        for seconds in (3, 40):
            path = write_wav(tmp_path / f"{seconds}.wav", noise[: seconds * 16_000].astype(np.float32), 16_000)
            batch = processor()(audio=path)
            with av.open(str(path)) as container:
                samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)]) / 32768
            track = np.pad(samples[: 30 * 16_000], (0, max(0, 30 * 16_000 - len(samples))))
            torch.testing.assert_close(batch["input_features"][0, 0], restated_features(track), rtol=0, atol=1e-4)
            assert batch["input_features_mask"].all()

    @needs_ffmpeg
    def test_any_sound_file(self, tmp_path):
        batch = processor()(audio=sound_file(tmp_path, ".mp3").path)
        assert batch["input_features"].shape == (1, 1, 2992, 128)


class TestImages:
    @needs_ffmpeg
    def test_an_image_costs_what_a_video_costs(self, tmp_path):
        own = processor(image_frames=FRAMES)
        path = image_file(tmp_path, ".png")
        batch = own(text="<|image|>", images=path, return_tensors="pt")
        assert (batch["input_ids"] == own.image_token_id).sum() == 2
        assert batch["pixel_values_videos"].shape == (1, 1, 3, SIDE, SIDE)


class TestSettings:
    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"sampling": "keyframe"}, "keyframe"),
            ({"preprocessing": "mine"}, "mine"),
            ({"do_resize": False}, "do_resize"),
            ({"preprocessing": "whole", "do_center_crop": True}, "do_center_crop"),
        ],
    )
    def test_what_does_not_go_together(self, settings, message):
        with pytest.raises(ValueError, match=message):
            processor().video_processor.settings(**settings)

    def test_they_are_saved(self, tmp_path):
        processor(crop=True).save_pretrained(tmp_path)
        loaded = SAVEnVideoProcessor.from_pretrained(tmp_path)
        assert loaded.video_processor.preprocessing == "videollama2" and loaded.video_processor.do_center_crop
        assert loaded.feature_extractor.fbank_dtype == "bfloat16"
        assert loaded.token_layout == processor().token_layout

    def test_times_are_not_asked_of_a_model_that_knows_none(self):
        frames = torch.zeros(FRAMES, 3, 8, 8, dtype=torch.uint8)
        with pytest.raises(ValueError, match="not told times"):
            processor()(text="<|video|> at 1 s?", videos=[frames], query_times=[[1.0]])

    def test_a_model_without_ears_is_given_no_sound(self, tmp_path):
        deaf = processor(has_audio_tower=False)
        with pytest.raises(UnsupportedMediaError, match="hears nothing"):
            deaf(audio=torch.zeros(16_000), sampling_rate=16_000)
        video = {"frames": torch.zeros(2, 3, 8, 8), "frame_times": [0.0, 1.0], "audio": torch.zeros(16_000)}
        assert "input_features" not in deaf(videos=[{**video, "sampling_rate": 16_000}])

"""Fbank equals Kaldi's; windows tile a track of any length without losing sound; bad input is named."""

import platform
import sys

import numpy as np
import pytest
import torch

from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor, kaldi_fbank
from saven_hf.savenvideo.layout import NO_TIME, audio_column_times


RATE = 16_000
WINDOW_SAMPLES, WINDOW_US = 158_720, 9_920_000

# The order in which kaldi-native-fbank adds inside its FFT is its compiler's choice: ours is that of this platform's
# wheels. Elsewhere single cells, where a band holds nothing but rounding errors, may differ by more than 1e-3.
same_rounding = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="kaldi-native-fbank may be compiled to round in another order here",
)


def kaldi_reference(waveform, num_mel_bins=128, rate=RATE):
    """kaldi-native-fbank on a float waveform in [-1, 1]: `(frames, num_mel_bins)`."""
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = rate
    options.mel_opts.num_bins = num_mel_bins
    extractor = knf.OnlineFbank(options)
    extractor.accept_waveform(rate, (np.asarray(waveform) * 2.0**15).tolist())
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])


def noise(num_samples, seed=0, level=0.1):
    return (np.random.default_rng(seed).standard_normal(num_samples) * level).astype(np.float32)


def speech_like(num_samples):
    """A gliding voice of 30 harmonics in syllables, over faint noise."""
    t = np.arange(num_samples) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 31)) * np.clip(np.sin(2 * np.pi * 2 * t + 1), 0, 1)
    return (0.1 * voice + noise(num_samples, level=1e-3)).astype(np.float32)


@pytest.fixture(scope="module")
def extractor():
    return SAVEnVideoBeatsFeatureExtractor()


def vowels(num_samples, seed=0):
    """A voice with vibrato and moving formants, its loudness going up and down; nothing at all between harmonics."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / RATE
    pitch = rng.uniform(80, 300) * (1 + 0.04 * np.sin(2 * np.pi * rng.uniform(4, 7) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = np.array([[500.0], [1500.0], [2500.0]]) * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    voice = sum(
        np.sin(k * phase) * (1 / (1 + ((k * pitch - formants) / 100) ** 2)).sum(0)
        for k in range(1, int(RATE / 2 // pitch.max()))
    )
    return (0.1 * voice * (1 + np.sin(2 * np.pi * rng.uniform(1, 5) * t))).astype(np.float32)


def sweep(num_samples):
    """A pure tone from 0 Hz to the Nyquist frequency: in all other bands there is nothing but rounding errors."""
    phase = 0.5 * np.pi * np.arange(num_samples, dtype=np.float64) ** 2 / num_samples
    return (0.5 * np.sin(phase)).astype(np.float32)


def clicks(num_samples, seed=0):
    """Digital silence with a click of one sample about every 0.1 s."""
    rng = np.random.default_rng(seed)
    waveform = np.zeros(num_samples, np.float32)
    where = rng.integers(0, num_samples, max(1, num_samples // 1600))
    waveform[where] = rng.uniform(-1, 1, len(where))
    return waveform


def fbank_error(waveform):
    """Largest absolute difference of any cell from kaldi-native-fbank's, in nats."""
    actual = kaldi_fbank(torch.from_numpy(waveform)).numpy()
    expected = kaldi_reference(waveform)
    assert actual.shape == expected.shape == (1 + (len(waveform) - 400) // 160, 128)
    return np.abs(actual - expected).max()


SIGNALS = {
    "noise": noise,
    "quiet noise": lambda num_samples: noise(num_samples, level=1e-5),
    "clipped noise": lambda num_samples: np.clip(noise(num_samples, level=1.0), -1, 1),
    "speech": speech_like,
    "vowels": vowels,
    "sweep": sweep,
    "hum and offset": lambda num_samples: (0.5 + 0.1 * np.sin(2 * np.pi * 50 / RATE * np.arange(num_samples))).astype(
        np.float32
    ),
    "silence": lambda num_samples: np.zeros(num_samples, np.float32),
    "clicks": clicks,
}


@same_rounding
@pytest.mark.parametrize("seconds", [0.1, 1.0, 10.0, 60.0])
@pytest.mark.parametrize("signal", SIGNALS)
def test_fbank_is_kaldis(signal, seconds):
    assert fbank_error(SIGNALS[signal](int(seconds * RATE))) < 1e-3


@same_rounding
@pytest.mark.slow
@pytest.mark.parametrize("make", [noise, vowels, clicks])
def test_fbank_is_kaldis_for_many_seeds(make):
    assert max(fbank_error(make(60 * RATE, seed=seed)) for seed in range(100, 120)) < 1e-3


@same_rounding
@pytest.mark.parametrize("rate, num_mel_bins", [(1600, 8), (24_000, 80), (48_000, 128)])
def test_fbank_is_kaldis_at_other_rates(rate, num_mel_bins):
    # FFTs of 64, 1024 and 2048 samples: with and without a step of radix 2.
    for waveform in (noise(rate), vowels(rate)):
        actual = kaldi_fbank(torch.from_numpy(waveform), rate, num_mel_bins).numpy()
        np.testing.assert_allclose(actual, kaldi_reference(waveform, num_mel_bins, rate), atol=1e-3, rtol=0)


def test_fbank_takes_batches_and_short_waveforms():
    waveforms = torch.from_numpy(np.stack([noise(3000), speech_like(3000)]))
    fbank = kaldi_fbank(waveforms)
    assert fbank.shape == (2, 17, 128)
    torch.testing.assert_close(fbank[1], kaldi_fbank(waveforms[1]))
    assert kaldi_fbank(torch.zeros(399)).shape == (0, 128)
    assert kaldi_fbank(torch.zeros(400)).shape == (1, 128)
    np.testing.assert_allclose(
        kaldi_fbank(waveforms[0], num_mel_bins=40).numpy(), kaldi_reference(waveforms[0], 40), atol=1e-3
    )


def test_fbank_in_blocks_is_the_same(monkeypatch):
    waveform = torch.from_numpy(noise(20_000))
    whole = kaldi_fbank(waveform)
    monkeypatch.setattr("saven_hf.savenvideo.feature_extraction_beats.FRAMES_PER_BLOCK", 7)
    torch.testing.assert_close(kaldi_fbank(waveform), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "num_samples, patches, windows",
    [
        (1, 1, 1),
        (2800, 1, 1),
        (2801, 2, 1),
        (WINDOW_SAMPLES + 240, 62, 1),
        (WINDOW_SAMPLES + 241, 63, 2),
        (160_000, 63, 2),
        (2 * 3600 * RATE, 45_000, 726),
    ],
)
def test_patches_hold_every_sample(extractor, num_samples, patches, windows):
    assert extractor.num_patches(num_samples) == patches
    assert extractor.num_windows(num_samples) == windows
    completed = 2560 * patches + 240
    assert num_samples <= completed < num_samples + 2560 + 240


@pytest.mark.parametrize("num_samples", [1, 399, 400, 5000, WINDOW_SAMPLES + 240, WINDOW_SAMPLES + 241, 500_000])
def test_windows_tile_the_track(extractor, num_samples):
    waveform = noise(num_samples)
    out = extractor(waveform, sampling_rate=RATE, start_times=[1_500_000], return_tensors="pt")
    features, mask = out.input_features[0], out.input_features_mask[0]
    patches = extractor.num_patches(num_samples)
    assert mask.sum() == patches * 16
    assert out.audio_times[0].tolist() == [
        1_500_000 + WINDOW_US * k for k in range(extractor.num_windows(num_samples))
    ]

    # The windows' frames in a row are the frames of the whole track, followed by silence.
    completed = np.concatenate([waveform, np.zeros(2560 * patches + 240 - num_samples, np.float32)])
    expected = (kaldi_reference(completed) - 15.41663) / (2 * 6.55582)
    np.testing.assert_allclose(features[mask].numpy(), expected, atol=1e-3)
    assert not features[~mask].any()

    # Each window is what its own samples make.
    for k in range(features.shape[0]):
        piece = torch.from_numpy(completed[k * WINDOW_SAMPLES : k * WINDOW_SAMPLES + WINDOW_SAMPLES + 240])
        alone = (kaldi_fbank(piece) - 15.41663) / (2 * 6.55582)
        torch.testing.assert_close(features[k][mask[k]], alone, atol=1e-5, rtol=0)


def test_a_click_is_in_the_patch_that_its_time_says(extractor):
    waveform = np.zeros(400_000, np.float32)
    out = extractor(waveform, sampling_rate=RATE, start_times=[-20_000], return_tensors="pt")
    times = audio_column_times(out.audio_times[0].tolist(), out.input_features_mask[0].sum(-1).tolist())
    for sample in (8_000, 158_800, 250_000, 399_999):
        waveform[sample] = 0.5
        clicked = extractor(waveform, sampling_rate=RATE, start_times=[-20_000], return_tensors="pt")
        waveform[sample] = 0.0
        change = (clicked.input_features - out.input_features).abs().amax(-1)[out.input_features_mask]
        heard = change.view(-1, 16).amax(-1).nonzero().flatten().tolist()
        click = -20_000 + sample * 1_000_000 / RATE
        assert heard and all(abs(times[column] - click) <= 87_500 for column in heard)


def test_batches_pad_with_masked_windows_and_frames(extractor):
    tracks = [noise(3000), noise(170_000, 1), speech_like(50_000)]
    out = extractor(tracks, sampling_rate=RATE, start_times=[0, None, 7], return_tensors="pt")
    assert out.input_features.shape == (3, 2, 992, 128) and out.input_features.dtype == torch.float32
    assert out.input_features_mask.dtype == torch.bool and out.audio_times.dtype == torch.int64
    assert out.input_features_mask.sum((1, 2)).tolist() == [32, 1072, 320]
    assert out.audio_times.tolist() == [[0, NO_TIME], [NO_TIME, NO_TIME], [7, NO_TIME]]
    for row, track in enumerate(tracks):
        alone = extractor(track, sampling_rate=RATE, return_tensors="pt")
        torch.testing.assert_close(
            out.input_features[row][out.input_features_mask[row]], alone.input_features[alone.input_features_mask]
        )
    # Tracks shorter than a window take no more frames than the longest of them.
    assert extractor([tracks[0], tracks[2]], sampling_rate=RATE)["input_features"].shape == (2, 1, 320, 128)


def test_input_types_agree(extractor):
    track = noise(3000)
    expected = extractor(track, sampling_rate=RATE, return_tensors="np")
    read_only = track.copy()
    read_only.flags.writeable = False
    for same in (
        torch.from_numpy(track),
        track.tolist(),
        [track],
        (track.tolist(),),
        track.astype(np.float64),
        read_only,
    ):
        actual = extractor(same, sampling_rate=RATE)
        for name, value in expected.items():
            assert isinstance(actual[name], np.ndarray)
            np.testing.assert_array_equal(actual[name], value)
    assert extractor(track, sampling_rate=RATE, start_times=5)["audio_times"].tolist() == [[5]]
    assert list(expected) == extractor.model_input_names


def test_two_hours_are_kept_whole():
    # A tenth of the sampling rate and few bands keep the test small; frames, patches and windows are those of 16 kHz.
    extractor = SAVEnVideoBeatsFeatureExtractor(feature_size=8, sampling_rate=1600)
    track = torch.zeros(2 * 3600 * 1600)
    track[-1] = 0.5
    out = extractor(track, sampling_rate=1600, return_tensors="pt")
    assert out.input_features.shape == (1, 726, 992, 8)
    assert out.input_features_mask.sum() == 45_000 * 16
    assert out.audio_times[0, -1] == 725 * WINDOW_US
    change = (out.input_features[0] - out.input_features[0, 0, 0]).abs().amax(-1) * out.input_features_mask[0]
    assert change.nonzero().tolist() == [[725, 798], [725, 799]]  # the two frames that hold the very last sample


def test_save_and_load(extractor, tmp_path):
    changed = SAVEnVideoBeatsFeatureExtractor(mean=1.0, std=2.0, patches_per_window=10)
    changed.save_pretrained(tmp_path)
    loaded = SAVEnVideoBeatsFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == changed.to_dict()
    assert loaded.to_dict() != extractor.to_dict()
    track = noise(60_000)
    np.testing.assert_array_equal(
        loaded(track, sampling_rate=RATE)["input_features"], changed(track, sampling_rate=RATE)["input_features"]
    )
    assert loaded(track, sampling_rate=RATE)["input_features"].shape == (1, 3, 160, 128)


@pytest.mark.parametrize(
    "sound, options, message",
    [
        (np.zeros(800, np.float32), {"sampling_rate": 44_100}, "44100 Hz.*16000 Hz"),
        (np.array([0.0, np.nan], np.float32), {}, "NaN or infinite"),
        (torch.tensor([0.0, -torch.inf]), {}, "NaN or infinite"),
        (np.zeros((2, 800), np.float32), {}, r"\(2, 800\)"),
        ([np.zeros(800), np.zeros((1, 800))], {}, r"Track 1 .* \(1, 800\)"),
        (np.zeros(0, np.float32), {}, "empty"),
        ([], {}, "empty"),
        ([[0.0], []], {}, "Track 1 .* empty"),
        (np.zeros(800, np.int16), {}, "int16.*32768"),
        ("sound.wav", {}, "str"),
        (["a", "b"], {}, "other than numbers"),
        (np.zeros(800, np.float32), {"start_times": [0, 1]}, "2 start times for 1 tracks"),
    ],
)
def test_bad_input_is_a_value_error_that_says_what(extractor, sound, options, message):
    with pytest.raises(ValueError, match=message):
        extractor(sound, **({"sampling_rate": RATE} | options))


@pytest.mark.parametrize("options", [{"sampling_rate": 11_025}, {"patch_size": 0}, {"patches_per_window": 0}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SAVEnVideoBeatsFeatureExtractor(**options)

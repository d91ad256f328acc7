"""Two hours of sound, from the file to the model's inputs: nothing of it is left out."""

import numpy as np
import pytest
import torch
from media_factory import write_wav

import saven_hf
from saven_hf.hub import config_folder
from saven_hf.savenvideo.layout import NO_TIME


SECONDS, RATE, BEEP = 7200, 8000, 0.5


@pytest.mark.slow
def test_a_track_of_two_hours_is_kept_whole(tmp_path):
    sound = np.zeros(SECONDS * RATE, dtype=np.float32)
    last = np.arange(int(BEEP * RATE)) / RATE
    sound[-len(last) :] = 0.5 * np.sin(2 * np.pi * 440 * last)
    processor = saven_hf.SAVEnVideoProcessor.from_pretrained(config_folder("savenvideo-tiny"))
    inputs = processor(audio=str(write_wav(tmp_path / "long.wav", sound, RATE)), return_tensors="pt")

    starts, mask = inputs["audio_times"][0], inputs["input_features_mask"][0]
    assert inputs["video_durations"].tolist() == [SECONDS * 1_000_000]
    assert NO_TIME not in starts.tolist()
    assert starts.diff().unique().tolist() == [9_920_000]
    # Valid frames of 10 ms cover the track to its last sample.
    assert mask.sum().item() * 0.01 == pytest.approx(SECONDS, abs=0.16)
    assert starts[-1].item() / 1e6 + mask[-1].sum().item() * 0.01 >= SECONDS - 0.02
    # And the beep that ends it is heard where it is: in the last half second, and nowhere before.
    energy = inputs["input_features"][0].mean(-1).masked_fill(~mask, float("-inf"))
    times = starts[:, None] / 1e6 + torch.arange(energy.shape[1]) * 0.01
    loud = times[energy > energy[0, 0] + 0.1]
    assert loud.min().item() == pytest.approx(SECONDS - BEEP, abs=0.03)
    assert loud.max().item() == pytest.approx(SECONDS, abs=0.03)

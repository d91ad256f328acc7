"""What a peer was fed is counted in the tensors, not in what was handed over."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saven_hf.peers.auto import Material, PeerError, PeerModel


def peer(**listener):
    ears = SimpleNamespace(sampling_rate=16_000, **listener) if listener else None
    eyes = SimpleNamespace(temporal_patch_size=2)
    return PeerModel(None, SimpleNamespace(video_processor=eyes, image_processor=None, feature_extractor=ears))


def material(frames, seconds):
    pixels = np.zeros((frames, 2, 2, 3), np.uint8) if frames else None
    return Material("video", pixels, [0.0] * frames, np.zeros(16_000 * seconds, np.float32), seconds)


def fed(of, materials, prompts=1, **inputs):
    ids = torch.ones(prompts, 7, dtype=torch.long)
    found = of._audit({"attention_mask": ids, **inputs}, prompts, materials)
    return found["frames"], found["audio_seconds"]


def test_frames_that_a_processor_dropped_are_not_counted():
    given = [material(6, 12)]
    grid = torch.tensor([[2, 4, 4]] * 3)  # two pairs of frames, for each of three prompts
    assert fed(peer(), given, 3, pixel_values_videos=torch.zeros(96, 8), video_grid_thw=grid) == (4, 0)
    # A last pair that was filled up with a copy.
    assert fed(peer(), [material(3, 1)], pixel_values_videos=torch.zeros(64, 8), video_grid_thw=grid[:1]) == (3, 0)
    assert fed(peer(), given, 2, pixel_values=torch.zeros(10, 3, 8, 8)) == (5, 0)  # pictures one by one
    assert fed(peer(), given, 2, pixel_values_videos=torch.zeros(2, 5, 3, 8, 8)) == (5, 0)
    assert fed(peer(), given) == (0, 0)


def test_sound_that_an_extractor_cut_is_not_counted():
    given, ears = [material(0, 12)], {"hop_length": 160, "feature_size": 80}
    mask = torch.zeros(2, 3000)
    mask[:, :500] = 1
    sound = {"input_features": torch.zeros(2, 80, 3000)}
    assert fed(peer(**ears), given, 2, **sound, feature_attention_mask=mask) == (0, 5)
    assert fed(peer(**ears), given, 2, **sound, feature_attention_mask=torch.ones(2, 3000)) == (0, 12)  # with padding
    assert fed(peer(**ears), given, input_features=torch.zeros(1, 80, 500)) == (0, 5)
    assert fed(peer(sampling=1), given, audio_values=torch.zeros(1, 8_000)) == (0, 0.5)
    assert fed(peer(**ears), given) == (0, 0)


def test_what_only_our_models_take_is_refused():
    with pytest.raises(PeerError, match="'preprocessing' is for SAVEnVideo alone"):
        PeerModel.load("some/model", preprocessing="videollama2")

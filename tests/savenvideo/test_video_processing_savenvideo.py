"""The video processor: every form of frames becomes the same dated tensor, and what cannot is refused in words."""

import media_factory
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from saven_hf.savenvideo import SAVEnVideoVideoProcessor
from saven_hf.savenvideo.layout import NO_TIME


@pytest.fixture
def processor():
    return SAVEnVideoVideoProcessor(size={"height": 12, "width": 20})


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    if media_factory.FFMPEG is None:
        pytest.skip("needs the ffmpeg command line to make a clip")
    return media_factory.make_clip(tmp_path_factory.mktemp("video") / "clip.mp4", seconds=2.0)


def frames(count=5, height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_all_forms_of_frames_agree(processor):
    video = frames()
    expected = processor(video)["pixel_values_videos"]
    assert expected.shape == (1, 5, 3, 12, 20) and expected.dtype == torch.uint8
    first = torch.from_numpy(video).permute(0, 3, 1, 2)
    forms = [
        first,
        first.numpy(),
        list(video),
        [Image.fromarray(frame) for frame in video],
        [first],
        [[first]],
        video[None],
        first.float() / 255,
        first.float(),
    ]
    for form in forms:
        torch.testing.assert_close(processor(form)["pixel_values_videos"], expected, rtol=0, atol=0)


def test_resizing_is_that_of_pillow(processor):
    video = frames(1, 48, 80)
    ours = processor(video)["pixel_values_videos"][0, 0].permute(1, 2, 0).numpy().astype(int)
    pillow = np.asarray(Image.fromarray(video[0]).resize((20, 12), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(ours - pillow).max() <= 1


def test_rescaled_and_normalized(processor):
    video = frames()
    raw = processor(video)["pixel_values_videos"].float()
    settings = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]}
    made = processor(video, do_rescale=True, do_normalize=True, **settings)["pixel_values_videos"]
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in settings)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, (raw / 255 - mean) / std)


def test_grey_and_transparent_frames(processor):
    grey = frames()[..., :1]
    made = processor(grey)["pixel_values_videos"]
    assert made.shape[2] == 3 and torch.equal(made[:, :, 0], made[:, :, 2])
    clear = np.zeros((2, 12, 20, 4), dtype=np.uint8)
    assert (processor(clear)["pixel_values_videos"] == 255).all()
    assert (processor([Image.fromarray(frame) for frame in clear])["pixel_values_videos"] == 255).all()


@pytest.mark.parametrize(
    "video, words",
    [
        (np.zeros((2, 3, 8, 8), dtype=np.float32) - 1, "-1"),
        (np.full((2, 3, 8, 8), np.nan, dtype=np.float32), "nan"),
        (np.zeros((2, 8, 8, 5), dtype=np.uint8), "colour channels"),
        (np.zeros((0, 3, 8, 8), dtype=np.uint8), "nothing to see"),
        ([np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 9, 3), dtype=np.uint8)], "one size"),
        (3.0, "float"),
        (torch.zeros(4), r"\(4,\)"),
        ({"pixels": 1}, "pixels"),
        ({"duration": 1.0}, "neither"),
    ],
)
def test_what_is_no_video_is_refused(processor, video, words):
    with pytest.raises(ValueError, match=words):
        processor(video)


def test_times_from_metadata(processor):
    made = processor(
        frames(4), video_metadata=VideoMetadata(total_num_frames=100, fps=25, frames_indices=[0, 10, 30, 99])
    )
    assert made["frame_times"].tolist() == [[0, 400_000, 1_200_000, 3_960_000]]
    assert made["video_durations"].tolist() == [4_000_000]
    made = processor(frames(4), video_metadata={"total_num_frames": 4, "fps": None, "duration": 2.0})
    assert made["frame_times"].tolist() == [[0, 500_000, 1_000_000, 1_500_000]]
    with pytest.raises(ValueError, match="100 frames, but 4"):
        processor(frames(4), video_metadata={"total_num_frames": 100, "fps": 25})


def test_explicit_times(processor):
    made = processor([frames(3), frames(2)], frame_times=[[0.0, 0.1, 0.5], [1.0, 3.0]])
    assert made["frame_times"].tolist() == [[0, 100_000, 500_000], [1_000_000, 3_000_000, NO_TIME]]
    assert made["frame_mask"].tolist() == [[True] * 3, [True, True, False]]
    assert made["video_durations"].tolist() == [750_000, 5_000_000]
    with pytest.raises(ValueError, match="2 frame_times for 3 frames"):
        processor(frames(3), frame_times=[0.0, 0.1])
    with pytest.raises(ValueError, match="1 entries of `frame_times` for 2 videos"):
        processor([frames(3), frames(3)], frame_times=[[0.0, 0.1, 0.2]])
    with pytest.raises(ValueError, match="no time"):
        processor(frames(1), frame_times=[float("nan")])


def test_without_times(processor):
    made = processor(frames(3))
    assert made["frame_times"].tolist() == [[NO_TIME] * 3]
    assert made["video_durations"].tolist() == [0]


def test_sampling_of_frames_in_memory(processor):
    video, metadata = frames(8), {"total_num_frames": 8, "fps": 4, "duration": 2.0}
    assert processor(video, num_frames=3)["pixel_values_videos"].shape[1] == 8
    made = processor(video, num_frames=2, do_sample_frames=True, video_metadata=metadata)
    assert made["frame_times"].tolist() == [[500_000, 1_500_000]]
    assert made["video_durations"].tolist() == [2_000_000]
    made = processor(video, fps=3, do_sample_frames=True, video_metadata=metadata)
    assert made["pixel_values_videos"].shape[1] == 6
    made = processor(video, fps=3, max_frames=2, do_sample_frames=True, video_metadata=metadata)
    assert made["pixel_values_videos"].shape[1] == 2
    with pytest.raises(ValueError, match="9 frames .* 8 frames"):
        processor(video, num_frames=9, do_sample_frames=True)
    with pytest.raises(ValueError, match="fps"):
        processor(video, fps=3, do_sample_frames=True)
    with pytest.raises(ValueError, match="keyframe"):
        processor(video, sampling="keyframe", do_sample_frames=True)


def test_frames_of_a_file(processor, clip):
    processor = SAVEnVideoVideoProcessor(size={"height": 48, "width": 80})
    made = processor(clip.path, num_frames=4)
    times = made["frame_times"][0].tolist()
    numbers = [media_factory.read_number(frame.numpy()) for frame in made["pixel_values_videos"][0]]
    assert numbers == [6, 18, 31, 43]  # on screen at 0.25, 0.75, 1.25, 1.75 s
    assert times == [round(clip.true_time(number) * 1e6) for number in numbers]
    assert made["video_durations"].tolist() == [2_000_000]
    assert torch.equal(
        processor(clip.path.read_bytes(), num_frames=4)["pixel_values_videos"], made["pixel_values_videos"]
    )
    with clip.path.open("rb") as file:
        assert processor(file, fps=2)["pixel_values_videos"].shape[1] == 4
    assert processor(clip.path, do_sample_frames=False)["pixel_values_videos"].shape[1] == 50
    assert processor({"path": str(clip.path), "bytes": None})["pixel_values_videos"].shape[1] == 16
    with pytest.raises(ValueError, match="knows the times"):
        processor(clip.path, frame_times=[0.0])


def test_image_files_as_frames(processor, tmp_path):
    paths = []
    for index, frame in enumerate(frames(3)):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(frame).save(paths[-1])
    made = processor([[paths]], frame_times=[0, 1, 2])
    assert made["frame_times"].tolist() == [[0, 1_000_000, 2_000_000]]
    with pytest.raises(ValueError, match="Set `do_sample_frames=False`"):
        processor([[paths]], do_sample_frames=True)
    (tmp_path / "1.png").write_text("no image")
    with pytest.raises(ValueError, match="frame 1: "):
        processor([[paths]])


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"fps": 2, "num_frames": 4}, "Both fps=2 and num_frames=4"),
        ({"sampling": "random"}, "random"),
        ({"sampling": "fps"}, "needs `fps`"),
        ({"max_frames": 0}, "max_frames must be above 0"),
        ({"size": {"shortest_edge": 20}}, "height and a width"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"resample": 1}, "resample"),
    ],
)
def test_bad_settings(processor, settings, words):
    with pytest.raises(ValueError, match=words):
        processor(frames(), **settings)


def test_the_way_of_sampling_follows_the_call():
    processor = SAVEnVideoVideoProcessor()
    assert processor.settings()["sampling"] == "uniform"
    assert processor.settings(fps=2)["sampling"] == "fps"
    assert processor.settings(fps=2, num_frames=3, sampling="keyframe")["sampling"] == "keyframe"
    saved = SAVEnVideoVideoProcessor(sampling="fps", fps=1)
    assert saved.settings()["sampling"] == "fps"
    assert saved.settings(num_frames=4)["sampling"] == "uniform"


def test_batches_of_unlike_frames_are_refused(processor):
    with pytest.raises(ValueError, match="same size"):
        processor([frames(), frames(5, 12, 12)], do_resize=False)


def test_saved_and_loaded(processor, tmp_path):
    processor.num_frames = 7
    processor.save_pretrained(tmp_path)
    for loaded in (SAVEnVideoVideoProcessor, AutoVideoProcessor):
        loaded = loaded.from_pretrained(tmp_path)
        assert type(loaded) is SAVEnVideoVideoProcessor
        assert loaded.to_dict() == processor.to_dict() and loaded.num_frames == 7

"""transformers' video processor suite on SAVEnVideoVideoProcessor."""

import unittest

import tests.test_video_processing_common as common
from tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from saven_hf.savenvideo.video_processing_savenvideo import SAVEnVideoVideoProcessor


# `transformers.AutoVideoProcessor` is a dummy where torchvision is absent; this is the class itself.
common.AutoVideoProcessor = AutoVideoProcessor


class SAVEnVideoVideoProcessingTester:
    batch_size = 5
    num_frames = 8
    num_channels = 3
    size = {"height": 18, "width": 20}

    def prepare_video_processor_dict(self):
        return {
            "size": self.size,
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "image_mean": [0.4, 0.5, 0.6],
            "image_std": [0.3, 0.2, 0.1],
            "do_convert_rgb": True,
        }

    def expected_output_video_shape(self, videos):
        return self.num_frames, self.num_channels, self.size["height"], self.size["width"]

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class SAVEnVideoVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = SAVEnVideoVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = SAVEnVideoVideoProcessingTester()

    @property
    def video_processor_dict(self):
        return self.video_processor_tester.prepare_video_processor_dict()

    def test_video_processor_from_dict_with_kwargs(self):
        # The suite's sizes are shortest edges with a crop; ours are fixed and nothing is cropped.
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict)
        self.assertEqual(processor.size, {"height": 18, "width": 20})
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict, size=42)
        self.assertEqual(processor.size, {"height": 42, "width": 42})

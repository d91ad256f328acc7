"""transformers' processor suite on SAVEnVideoProcessor."""

import unittest
import unittest.mock

from tests.test_processing_common import ProcessorTesterMixin
from tiny_setup import feature_extractor, layout, tokenizer, video_processor

from saven_hf.savenvideo.processing_savenvideo import SAVEnVideoProcessor


# Remote code: saving marks the object with an `auto_map`, which the suite's comparisons of dicts do not expect.
SAVEnVideoProcessor._auto_class = None


class SAVEnVideoProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = SAVEnVideoProcessor

    @classmethod
    def _setup_video_processor(cls):
        return video_processor()

    @classmethod
    def _setup_feature_extractor(cls):
        return feature_extractor()

    @classmethod
    def _setup_tokenizer(cls):
        return tokenizer()

    @staticmethod
    def prepare_processor_dict():
        return {"layout": layout()}

    @property
    def video_sampling_expectations(self):
        # 11 frames at 30 a second: at the middles of tenths of a second there are 4 (0.05, 0.15, 0.25 and 0.35 s),
        # where the suite counts the whole tenths.
        expectations = super().video_sampling_expectations
        for expected in expectations:
            if expected.get("fps") and "do_sample_frames" not in expected:
                expected["output_length"] = 4
        return expectations

    def test_chat_template_audio_from_video(self):
        # All media of a batch share the leading dimension: a sound is a row of the frames too, with an empty mask.
        def assert_same_but_rows(shape, expected, msg=None):
            self.assertTupleEqual(tuple(shape[1:]), tuple(expected[1:]), msg)

        with unittest.mock.patch.object(self, "assertListEqual", assert_same_but_rows):
            super().test_chat_template_audio_from_video()

    # These two write placeholders for all three kinds of media, but pass images only to processors that have an image
    # processor. Ours shows them to the video processor.
    def test_processor_with_multiple_inputs(self):
        self.image_token = ""
        super().test_processor_with_multiple_inputs()

    def test_replacement_offsets(self):
        self.image_token = ""
        super().test_replacement_offsets()

"""transformers' feature extractor suite on SAVEnVideoBeatsFeatureExtractor."""

import random
import unittest

import numpy as np
from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin
from tiny_setup import AUDIO_PATCH, MEL_BINS

from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor


class SAVEnVideoBeatsFeatureExtractionTester:
    """Sequences of fbank frames of three lengths; the numbers differ from the extractor's defaults."""

    batch_size = 3
    min_seq_length = 20
    max_seq_length = 50
    feature_size = MEL_BINS

    @property
    def seq_length_diff(self):
        return (self.max_seq_length - self.min_seq_length) // (self.batch_size - 1)

    def prepare_feat_extract_dict(self):
        return {
            "feature_size": self.feature_size,
            "sampling_rate": 8_000,
            "padding_value": 0.0,  # the sums in the padding tests assume it
            "patch_size": AUDIO_PATCH,
            "patches_per_window": 7,
            "mean": 11.0,
            "std": 4.0,
        }

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        rng = random.Random(0)
        lengths = range(self.min_seq_length, self.max_seq_length + 1, self.seq_length_diff)
        if equal_length:
            lengths = [self.max_seq_length] * self.batch_size
        inputs = [[[rng.random() for _ in range(self.feature_size)] for _ in range(length)] for length in lengths]
        return [np.asarray(sequence) for sequence in inputs] if numpify else inputs


class SAVEnVideoBeatsFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = SAVEnVideoBeatsFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = SAVEnVideoBeatsFeatureExtractionTester()

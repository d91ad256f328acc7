"""transformers' model and generation suites on SAVEnVideoModel and SAVEnVideoForConditionalGeneration."""

import copy
import unittest
from itertools import cycle, islice

import tests.generation.test_utils as generation
import tests.test_modeling_common as common
import torch
from tests.generation.test_utils import GenerationTesterMixin
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin
from tiny_setup import (
    AUDIO_PATCH,
    IMAGE_SIZE,
    VOCABULARY_SIZE,
    random_frames,
    savenvideo_config,
    teach_names,
)

from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig
from saven_hf.savenvideo.layout import TokenLayout, audio_column_times
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoModel


teach_names(common, generation)

FRAME_TIMES = [250_000, 750_000, 1_250_000, 1_750_000]  # the middle of each half second, in microseconds
DURATION = 2_000_000
NUM_COLUMNS = 3  # 480 ms of sound
QUERY_TIMES = [500_000, 1_500_000]
# Whether there is a picture, and a sound: of one sample after the other, again and again.
MIXES = ((True, True), (False, True), (True, False))


def random_prompt(shape, vocab_size, rng=None, name=None):
    """Stands in for the suites' `ids_tensor`: no special ids, because placeholders without media are an error."""
    return torch.randint(savenvideo_config().audio_token_id + 1, vocab_size, tuple(shape))


common.ids_tensor = generation.ids_tensor = random_prompt
zero_init = common._config_zero_init


def zero_init_but_colours(config):
    """Stands in for the suite's `_config_zero_init`, to which any "_std" is one of weights: `image_std` is not."""
    bare = copy.copy(config)
    colours = vars(bare).pop("image_std", None)  # configs of towers and of text have none
    bare = zero_init(bare)
    if colours is not None:
        bare.image_std = colours
    return bare


common._config_zero_init = zero_init_but_colours


def with_use_cache(config):
    config.use_cache = True
    return config


VIDEO_INPUTS = (
    "pixel_values_videos",
    "frame_times",
    "frame_mask",
    "query_times",
    "query_times_mask",
    "video_durations",
)
AUDIO_INPUTS = ("input_features", "input_features_mask", "audio_times")


class SAVEnVideoModelTester:
    """A video of 4 frames and 480 ms of sound, with two times in the question, per sample.

    The samples take turns in what they lack (`MIXES`): a test of the batch is one of all mixes, and a test that takes
    samples one by one has each.
    """

    batch_size = 7  # the eager/sdpa test wants 7 rows and cannot make up rows of a boolean mask
    seq_length = 20
    is_training = True
    # What single tests change.
    freeze_towers = True
    with_media = True
    with_durations = True
    mixes = MIXES

    def __init__(self, parent):
        self.parent = parent
        config = self.get_config()
        # What the suite asks of the text model, and of the towers.
        self.vocab_size = config.text_config.vocab_size
        self.hidden_size = config.text_config.hidden_size
        self.num_hidden_layers = config.text_config.num_hidden_layers
        self.num_attention_heads = config.text_config.num_attention_heads
        self.vision_config = config.vision_config.to_dict()
        self.audio_config = config.audio_config.to_dict()
        self.text_config = config.text_config.to_dict()

    def get_config(self):
        return savenvideo_config(freeze_vision=self.freeze_towers, freeze_audio=self.freeze_towers)

    def media_inputs(self):
        """The tensors of one video with sound per sample, as the processor returns them (frames already float)."""
        rng = torch.Generator().manual_seed(0)
        size, frames, audio_frames = self.batch_size, len(FRAME_TIMES), NUM_COLUMNS * AUDIO_PATCH
        seen, heard = torch.tensor(self.mix_of_each()).T
        return {
            "pixel_values_videos": torch.randn(size, frames, 3, IMAGE_SIZE, IMAGE_SIZE, generator=rng).clamp(-1, 1),
            "frame_times": torch.tensor(FRAME_TIMES).expand(size, -1).clone(),
            "frame_mask": seen[:, None].repeat(1, frames),
            "input_features": random_frames(size, audio_frames, rng).unsqueeze(1),
            "input_features_mask": heard[:, None, None].repeat(1, 1, audio_frames),
            "audio_times": torch.zeros(size, 1, dtype=torch.int64),
            "query_times": torch.tensor(QUERY_TIMES).expand(size, -1).clone(),
            "query_times_mask": torch.ones(size, len(QUERY_TIMES), dtype=torch.bool),
            "video_durations": torch.full((size,), DURATION),
        }

    def mix_of_each(self):
        return list(islice(cycle(self.mixes), self.batch_size))

    def speech_times(self):
        """Times of the columns of what the speech tower hears."""
        return []

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        input_ids = random_prompt((self.batch_size, self.seq_length), VOCABULARY_SIZE)
        attention_mask = torch.ones_like(input_ids)
        attention_mask[0, :1] = attention_mask[1, :2] = 0
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.with_media:
            inputs.update(self.media_inputs())
            layout = TokenLayout.from_config(config)
            columns, speech = audio_column_times([0], [NUM_COLUMNS * AUDIO_PATCH]), self.speech_times()
            for ids, (seen, heard) in zip(input_ids, self.mix_of_each(), strict=True):
                media = (FRAME_TIMES * seen, columns * heard, DURATION, len(QUERY_TIMES), speech * heard)
                ids[3 : 3 + layout.num_tokens(*media)] = config.video_token_id
        if not self.with_durations:
            del inputs["video_durations"]
        return config, inputs


class SAVEnVideoModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (SAVEnVideoModel, SAVEnVideoForConditionalGeneration)
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True  # the suite reads the year off a copyright line
    # As for LLaVA-OneVision: the vision tower's rows are the frames of all videos.
    skip_test_video_features_output_shape = True
    audio_inputs = AUDIO_INPUTS
    additional_model_inputs = [*VIDEO_INPUTS, *AUDIO_INPUTS]

    model_tester_class = SAVEnVideoModelTester

    def setUp(self):
        self.model_tester = self.model_tester_class(self)
        self.config_tester = ConfigTester(self, config_class=SAVEnVideoConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def check_training_gradient_checkpointing(self, gradient_checkpointing_kwargs=None):
        # The suite watches the first checkpointed layer, which is in a tower: frozen, it would never recompute.
        self.model_tester.freeze_towers = False
        super().check_training_gradient_checkpointing(gradient_checkpointing_kwargs)

    if hasattr(GenerationTesterMixin, "test_greedy_generate"):  # absent without a clone of transformers

        def attention_mask_padding_matches_padding_free_with_position_ids(self, *args, **kwargs):
            # The suite keeps the ids and drops the rest, so there must be no placeholders among them.
            self.model_tester.with_media = False
            super().attention_mask_padding_matches_padding_free_with_position_ids(*args, **kwargs)

        def test_generate_compile_model_forward_fullgraph(self):
            # The suite halves batches with `[:half, :]`, which a tensor of one dimension does not take.
            self.model_tester.with_durations = False
            super().test_generate_compile_model_forward_fullgraph()

        def test_generate_continue_from_inputs_embeds(self):
            # The suite looks for `use_cache` in the top config, where only text models have it.
            get_config = self.model_tester.get_config
            self.model_tester.get_config = lambda: with_use_cache(get_config())
            super().test_generate_continue_from_inputs_embeds()

    # The suite picks the inputs of each modality by their names, which does not find all of ours. One modality by
    # itself is that of samples which have it.
    def prepare_one_modality(self):
        self.model_tester.mixes = MIXES[:1]
        return self.model_tester.prepare_config_and_inputs_for_common()

    def _video_features_prepare_config_and_inputs(self):
        config, inputs = self.prepare_one_modality()
        return config, {name: inputs[name] for name in VIDEO_INPUTS}

    def _audio_features_prepare_config_and_inputs(self):
        config, inputs = self.prepare_one_modality()
        return config, {name: inputs[name] for name in self.audio_inputs}

    def _image_features_prepare_config_and_inputs(self):
        config, inputs = self.prepare_one_modality()
        return config, {"pixel_values": inputs["pixel_values_videos"][:, 0]}

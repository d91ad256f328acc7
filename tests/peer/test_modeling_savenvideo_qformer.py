"""transformers' model and generation suites with the causal Q-Former, and a speech tower that hears half a second."""

import test_modeling_savenvideo as savenvideo
import torch
from tiny_setup import SPEECH_BINS, savenvideo_config, speech_config

from saven_hf.savenvideo.layout import speech_column_times


SPEECH_FRAMES = 50
AUDIO_INPUTS = (*savenvideo.AUDIO_INPUTS, "speech_features", "speech_features_mask", "speech_times")


class CausalQFormerModelTester(savenvideo.SAVEnVideoModelTester):
    with_speech = True

    def get_config(self):
        frozen = {f"freeze_{tower}": self.freeze_towers for tower in ("vision", "audio", "speech")}
        return savenvideo_config(
            resampler_type="causal_qformer", qformer_rows=6, speech_config=speech_config(), **frozen
        )

    def media_inputs(self):
        inputs = super().media_inputs()
        if self.with_speech:
            rng = torch.Generator().manual_seed(1)
            _, heard = torch.tensor(self.mix_of_each()).T
            inputs |= {
                "speech_features": torch.randn(self.batch_size, 1, SPEECH_FRAMES, SPEECH_BINS, generator=rng),
                "speech_features_mask": heard[:, None, None].repeat(1, 1, SPEECH_FRAMES),
                "speech_times": torch.zeros(self.batch_size, 1, dtype=torch.int64),
            }
        return inputs

    def speech_times(self):
        return speech_column_times([0], [SPEECH_FRAMES]) if self.with_speech else []


class CausalQFormerModelTest(savenvideo.SAVEnVideoModelTest):
    model_tester_class = CausalQFormerModelTester
    audio_inputs = AUDIO_INPUTS
    additional_model_inputs = [*savenvideo.VIDEO_INPUTS, *AUDIO_INPUTS]

    if hasattr(savenvideo.GenerationTesterMixin, "test_greedy_generate"):  # absent without a clone of transformers

        def test_generate_continue_from_past_key_values(self):
            # The suite drops the picture and the sound that are in the cache, and does not know of speech.
            self.model_tester.with_speech = False
            super().test_generate_continue_from_past_key_values()

"""transformers' model and generation suites with the connectors that do not attend."""

import test_modeling_savenvideo as savenvideo
from tiny_setup import savenvideo_config


class MLPModelTester(savenvideo.SAVEnVideoModelTester):
    resampler_type = "mlp"
    seq_length = 40  # every patch is a token

    def get_config(self):
        frozen = {"freeze_vision": self.freeze_towers, "freeze_audio": self.freeze_towers}
        return savenvideo_config(resampler_type=self.resampler_type, **frozen)


class MLPPoolModelTester(MLPModelTester):
    resampler_type = "mlp_pool"


class MLPModelTest(savenvideo.SAVEnVideoModelTest):
    model_tester_class = MLPModelTester


class MLPPoolModelTest(savenvideo.SAVEnVideoModelTest):
    model_tester_class = MLPPoolModelTester

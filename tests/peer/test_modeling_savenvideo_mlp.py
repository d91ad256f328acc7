"""transformers' model and generation suites with the connectors that do not attend."""

import test_modeling_savenvideo as savenvideo
from tests.test_configuration_common import ConfigTester
from tiny_setup import savenvideo_config

from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig


class MLPModelTester(savenvideo.SAVEnVideoModelTester):
    resampler_type = "mlp"
    seq_length = 40  # every patch is a token

    def get_config(self):
        frozen = {"freeze_vision": self.freeze_towers, "freeze_audio": self.freeze_towers}
        return savenvideo_config(resampler_type=self.resampler_type, **frozen)


class MLPPoolModelTester(MLPModelTester):
    resampler_type = "mlp_pool"


class MLPModelTest(savenvideo.SAVEnVideoModelTest):
    tester_class = MLPModelTester

    def setUp(self):
        self.model_tester = self.tester_class(self)
        self.config_tester = ConfigTester(self, config_class=SAVEnVideoConfig, has_text_modality=False)


class MLPPoolModelTest(MLPModelTest):
    tester_class = MLPPoolModelTester

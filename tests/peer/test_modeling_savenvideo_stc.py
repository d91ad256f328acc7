"""transformers' model and generation suites with the connector of VideoLLaMA 2."""

import test_modeling_savenvideo as savenvideo
from tests.test_configuration_common import ConfigTester
from tiny_setup import savenvideo_config

from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig


class STCModelTester(savenvideo.SAVEnVideoModelTester):
    def get_config(self):
        frozen = {"freeze_vision": self.freeze_towers, "freeze_audio": self.freeze_towers}
        return savenvideo_config(resampler_type="stc", stc_depth=1, **frozen)


class STCModelTest(savenvideo.SAVEnVideoModelTest):
    def setUp(self):
        self.model_tester = STCModelTester(self)
        self.config_tester = ConfigTester(self, config_class=SAVEnVideoConfig, has_text_modality=False)

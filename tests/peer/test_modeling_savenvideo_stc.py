"""transformers' model and generation suites with the connector of VideoLLaMA 2, as it is and on a budget of tokens."""

import test_modeling_savenvideo as savenvideo
from tiny_setup import savenvideo_config


class STCModelTester(savenvideo.SAVEnVideoModelTester):
    stc_tokens_per_window = None

    def get_config(self):
        frozen = {"freeze_vision": self.freeze_towers, "freeze_audio": self.freeze_towers}
        budget = {"stc_tokens_per_window": self.stc_tokens_per_window}
        return savenvideo_config(resampler_type="stc", stc_depth=1, **budget, **frozen)


class STCOnABudgetModelTester(STCModelTester):
    stc_tokens_per_window = 2


class STCModelTest(savenvideo.SAVEnVideoModelTest):
    model_tester_class = STCModelTester


class STCOnABudgetModelTest(savenvideo.SAVEnVideoModelTest):
    model_tester_class = STCOnABudgetModelTester

"""What importing the package does, and what it must not do."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_takes_nothing_heavy():
    code = (
        "import sys, saven_hf\n"
        "heavy = ('trl', 'peft', 'gradio', 'datasets', 'torchvision', 'torchaudio', 'bitsandbytes', 'av')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_import_registers_with_every_auto_class():
    code = (
        "import saven_hf\n"
        "from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM\n"
        "from transformers import AutoFeatureExtractor, AutoProcessor\n"
        "from transformers.models.auto.video_processing_auto import AutoVideoProcessor\n"
        "from transformers import CONFIG_MAPPING\n"
        "config = CONFIG_MAPPING['savenvideo']\n"
        "assert CONFIG_MAPPING['savenvideo_beats'] is saven_hf.SAVEnVideoBeatsConfig\n"
        "for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):\n"
        "    print(auto._model_mapping[config].__name__)\n"
    )
    assert run(code).split() == ["SAVEnVideoModel", *["SAVEnVideoForConditionalGeneration"] * 2]

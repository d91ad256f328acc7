"""transformers' pipeline suite on SAVEnVideoForConditionalGeneration: the any-to-any task."""

import tempfile
import unittest
from pathlib import Path

import tests.test_pipeline_mixin as common
import tiny
import transformers
from tests.test_pipeline_mixin import PipelineTesterMixin
from transformers.utils import is_torchvision_available

from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from saven_hf.savenvideo.processing_savenvideo import SAVEnVideoProcessor, default_chat_template

tiny.teach_names(common)


class SAVEnVideoPipelineTest(PipelineTesterMixin, unittest.TestCase):
    pipeline_model_mapping = {"any-to-any": SAVEnVideoForConditionalGeneration}

    @classmethod
    def setUpClass(cls):
        # The suite loads tiny models of the Hub by name, from a list of them; here a folder stands for the Hub.
        cls.hub = tempfile.TemporaryDirectory()
        name = SAVEnVideoForConditionalGeneration.__name__
        folder = Path(cls.hub.name) / "savenvideo" / name
        # The suite's chat has blocks of a type "videos", which most templates pass over. Ours refuses what it does not
        # know, so here it is taught to pass them over too; `test_chat_with_video` has a chat as it should be.
        known = "{%- elif block.type == 'text' -%}"
        template = default_chat_template().replace(known, "{%- elif block.type == 'videos' -%}" + known)
        processor = tiny.processor(chat_template=template)
        model = SAVEnVideoForConditionalGeneration(tiny.savenvideo_config_for(processor.tokenizer))
        cls.folder = folder
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        common.TRANSFORMERS_TINY_MODEL_PATH = cls.hub.name
        common.tiny_model_summary = {name: {"tokenizer_classes": ["Qwen2Tokenizer"], "processor_classes": []}}
        # It also looks classes up by name in transformers.
        transformers.SAVEnVideoProcessor = SAVEnVideoProcessor

    @classmethod
    def tearDownClass(cls):
        del transformers.SAVEnVideoProcessor
        cls.hub.cleanup()

    def run_task_tests(self, task, dtype="float32"):
        if task in self.pipeline_model_mapping and not is_torchvision_available():
            self.skipTest("transformers' AnyToAnyPipeline does not start without torchvision")
        super().run_task_tests(task, dtype)

    @unittest.skipUnless(is_torchvision_available(), "transformers' AnyToAnyPipeline does not start without torchvision")
    def test_chat_with_video(self):
        pipe = transformers.pipeline(
            "any-to-any",
            model=SAVEnVideoForConditionalGeneration.from_pretrained(self.folder),
            processor=SAVEnVideoProcessor.from_pretrained(self.folder),
        )
        video = {"type": "video", "path": str(Path(common.__file__).parents[1] / "media" / "video_with_sound.mp4")}
        chat = [{"role": "user", "content": [video, {"type": "text", "text": "What is this?"}]}]
        (answer,) = pipe(text=chat, return_full_text=False, max_new_tokens=4, min_new_tokens=4)
        self.assertEqual(answer["input_text"], chat)
        self.assertIsInstance(answer["generated_text"], str)

"""transformers' pipeline suite on SAVEnVideoForConditionalGeneration: the any-to-any task."""

import tempfile
import unittest
import unittest.mock
from pathlib import Path

import tests.pipelines.test_pipelines_any_to_any as any_to_any
import tests.test_pipeline_mixin as common
import tiny_setup
import transformers
from tests.test_pipeline_mixin import PipelineTesterMixin
from transformers.utils import is_torchvision_available

from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from saven_hf.savenvideo.processing_savenvideo import SAVEnVideoProcessor


tiny_setup.teach_names(common)

NO_TORCHVISION = "AnyToAnyPipeline does not start without torchvision"


class SAVEnVideoPipelineTest(PipelineTesterMixin, unittest.TestCase):
    pipeline_model_mapping = {"any-to-any": SAVEnVideoForConditionalGeneration}

    @classmethod
    def setUpClass(cls):
        # The suite loads tiny models of the Hub by name, from a list of them; here a folder stands for the Hub.
        cls.hub = tempfile.TemporaryDirectory()
        name = SAVEnVideoForConditionalGeneration.__name__
        folder = Path(cls.hub.name) / "savenvideo" / name
        processor = tiny_setup.processor()
        model = SAVEnVideoForConditionalGeneration(tiny_setup.savenvideo_config_for(processor.tokenizer))
        cls.folder = folder
        # Batches are drawn from all examples, and pipelines cannot batch videos with sounds (they have other tensors).
        get_test_pipeline = any_to_any.AnyToAnyPipelineTests.get_test_pipeline

        def get_pipeline_and_videos(self, *args, **kwargs):
            pipe, examples = get_test_pipeline(self, *args, **kwargs)
            return pipe, [example for example in examples if "videos" in example]

        any_to_any.AnyToAnyPipelineTests.get_test_pipeline = get_pipeline_and_videos
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
            self.skipTest(NO_TORCHVISION)
        # The suite's chat is written for pipelines without a template (blocks of a type "videos", answers as strings):
        # the processor gets none here, and `test_chat` has chats as they should be.
        load = SAVEnVideoProcessor.from_pretrained

        def load_for_suite(*args, **kwargs):
            processor = load(*args, **kwargs)
            processor.chat_template = None
            # Pipelines make batches only where the two agree; what they pad here is masked on either side.
            processor.feature_extractor.padding_side = processor.tokenizer.padding_side
            return processor

        with unittest.mock.patch.object(SAVEnVideoProcessor, "from_pretrained", load_for_suite):
            super().run_task_tests(task, dtype)

    @unittest.skipUnless(is_torchvision_available(), NO_TORCHVISION)
    def test_chat(self):
        pipe = transformers.pipeline(
            "any-to-any",
            model=SAVEnVideoForConditionalGeneration.from_pretrained(self.folder),
            processor=SAVEnVideoProcessor.from_pretrained(self.folder),
        )
        media = Path(common.__file__).parents[1] / "media"
        for kind, file in (("video", "video_with_sound.mp4"), ("image", "picture.png"), ("audio", "sound.wav")):
            with self.subTest(kind):
                block = {"type": kind, "path": str(media / file)}
                chat = [{"role": "user", "content": [block, {"type": "text", "text": "What is this?"}]}]
                (answer,) = pipe(text=chat, return_full_text=False, max_new_tokens=4, min_new_tokens=4)
                self.assertEqual(answer["input_text"], chat)
                self.assertIsInstance(answer["generated_text"], str)

"""Every connector through the processor, the training command and the evaluation command."""

import json

import pytest
import torch
from batches import gap
from kinds import KINDS
from small import save_small_model, small_model

from saven_hf.cli import main
from saven_hf.evaluation import evaluate_world
from saven_hf.hub import load


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_encoded_ahead_is_the_video(kind, clip):
    model, processor = small_model(**KINDS[kind])
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "At 2 s?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    if model.model.resampler.joint:
        with pytest.raises(ValueError, match="joint"):
            model.encode_video(clip, processor)
        return
    for way in ("whole", "videollama2"):
        memory = model.encode_video(clip, processor, preprocessing=way)
        ahead = processor(text=text, videos=[memory], return_tensors="pt")  # which knows how it was watched
        direct = processor(text=text, videos=[str(clip)], preprocessing=way, return_tensors="pt")
        assert torch.equal(ahead["input_ids"], direct["input_ids"])
        with torch.no_grad():
            assert gap(model(**ahead).logits, model(**direct).logits) < 1e-4


SLOW = ("mlp", "mlp_pool", "stc")  # what is left runs by default


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS if kind not in ("avts", "joint")],
)
def test_trained_by_a_recipe_and_measured(kind, clip, tmp_path):
    start = save_small_model(tmp_path / "start", **KINDS[kind])
    question = [{"type": "video", "video": str(clip)}, {"type": "text", "text": "What is seen at 2 s?"}]
    row = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "a red circle"}]}
    (tmp_path / "rows.jsonl").write_text((json.dumps(row) + "\n") * 2)
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(
            {
                "stage": "saven",
                "model": start,
                "output_dir": str(tmp_path / "out"),
                "data": [{"path": str(tmp_path / "rows.jsonl")}],
                "global_batch_size": 2,
                "per_device_train_batch_size": 2,
                "max_steps": 1,
                "precision": "float32",
                "lora": {"r": 4},
                "trainer": {"use_cpu": True, "disable_tqdm": True},
            }
        )
    )
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    loaded = load(tmp_path / "out" / "merged", "cpu")
    assert loaded[0].config.resampler_type == KINDS[kind].get("resampler_type", "avts")
    summary = evaluate_world(*loaded, tmp_path / "run", ["iid"], [], videos=1, num_frames=4, progress=False)
    assert 0 <= summary["accuracy"] <= 1

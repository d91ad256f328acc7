"""What every connector must do with every mix of modalities."""

import pytest
import torch
from batches import gap, inputs_for, logits_of
from kinds import KINDS
from tiny import AUDIO, IMAGE, VIDEO, tiny_model, video_media

from saven_hf.savenvideo.connectors import CONNECTORS


def mixes(model) -> dict[str, list[dict]]:
    """Media of a sample, by name; with what a speech tower hears where the model has one."""
    speech = model.config.speech_config is not None
    return {
        "picture and sound": [video_media(questions=(1.0, 3.0), speech=speech)],
        "picture": [video_media((0.5, 1.5, 2.5), 0, 3.0, seed=1)],
        "sound": [video_media((), 3.2, 3.2, seed=2, speech=speech)],
        "image": [video_media((None,), 0, 0.0, seed=3)],
        "text": [],
        "two videos": [
            video_media(questions=(2.0,), seed=4, speech=speech),
            video_media((0.1,), 1.6, 1.7, seed=5, speech=speech),
        ],
    }


SETTINGS = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "suppress_tokens": [VIDEO, IMAGE, AUDIO]}


@pytest.fixture(params=KINDS)
def model(request):
    return tiny_model(**KINDS[request.param])


def test_none_is_left_out():
    assert {settings.get("resampler_type", "avts") for settings in KINDS.values()} == set(CONNECTORS)


def test_a_batch_of_all_mixes_is_each_of_them(model):
    together = logits_of(model, inputs_for(model, *mixes(model).values()))
    for seed, (media, logits) in enumerate(zip(mixes(model).values(), together, strict=True)):
        [alone] = logits_of(model, inputs_for(model, media, seeds=[seed]))
        assert gap(alone, logits) < 1e-4


def test_padding_is_storage_only(model):
    clean, poisoned = (
        logits_of(model, inputs_for(model, *mixes(model).values(), fill=fill)) for fill in (0, float("nan"))
    )
    assert all(torch.equal(left, right) for left, right in zip(clean, poisoned, strict=True))


def test_generation_in_a_batch_and_with_beams(model):
    inputs = inputs_for(model, *mixes(model).values())
    answers = model.generate(**inputs, **SETTINGS, num_beams=2)[:, inputs["input_ids"].shape[1] :]
    for seed, media in enumerate(mixes(model).values()):
        alone = inputs_for(model, media, seeds=[seed])
        answer = model.generate(**alone, **SETTINGS, num_beams=2)[:, alone["input_ids"].shape[1] :]
        assert torch.equal(answer[0], answers[seed])


def test_each_modality_that_is_there_is_heard_and_seen(model):
    # New weights are so small that what is heard is a rounding error.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.resampler.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    for name, media in mixes(model).items():
        inputs = inputs_for(model, media)
        before = model(**inputs).logits
        for tensor in ("pixel_values_videos", "input_features", "speech_features"):
            if tensor in inputs:
                changed = inputs | {tensor: inputs[tensor].flip(-1)}
                assert gap(before, model(**changed).logits) > 1e-6, (name, tensor)


def test_bfloat16_is_finite_and_near(model):
    inputs = inputs_for(model, *mixes(model).values())
    exact = torch.cat(logits_of(model, inputs))
    half = torch.cat(logits_of(model.to(torch.bfloat16), inputs))
    assert half.dtype == torch.bfloat16 and gap(half, exact) < 0.2 * exact.abs().max().item()


def test_gradients_reach_the_whole_connector(model):
    """All of it but what nothing reads in this batch: a modality embedding that only questions use, and the like."""
    inputs = inputs_for(model, *mixes(model).values())
    model.train()
    model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] >= VIDEO, -100)).loss.backward()
    silent = [
        name
        for name, parameter in model.model.resampler.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all() or not parameter.grad.any()
    ]
    assert not silent


def test_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    inputs = inputs_for(model, *mixes(model).values())
    for left, right in zip(
        logits_of(model, inputs), logits_of(type(model).from_pretrained(tmp_path), inputs), strict=True
    ):
        assert gap(left, right) < 1e-5

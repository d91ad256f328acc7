"""Sharded training, on the CPU: torch's own `fully_shard` over gloo, with another number of media on each process.

accelerate falls back to DDP for FSDP2 on a CPU, so this does not go through it: what it would wrap, by
`hub_configs/accelerate/fsdp2.yaml`, is wrapped here.
"""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from small import feature_rows, small_model, talk
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from saven_hf.training.collator import SAVEnVideoCollator
from saven_hf.training.recipe import Lora, recipe_file
from saven_hf.training.stages import apply_stage, reach_connector, trained_parameters


ACCELERATE = recipe_file("7b/saven").parents[2] / "accelerate"
WRAPPED = yaml.safe_load((ACCELERATE / "fsdp2.yaml").read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]


def loss_of(model, batch):
    """Sum over the answers' tokens."""
    inputs = {name: batch[name] for name in batch if name not in ("labels", "loss_weights")}
    logits = model(**inputs).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")


def rows_for(model, processor):
    """A process has one video and two, the other has none at all."""
    rows = feature_rows(model, processor, 2, media=(1, 2))
    return [rows[0], {"messages": talk("What is it?", "nothing")}, rows[1], {"messages": talk("And now?", "still")}]


def prepared(stage):
    model, processor = small_model()
    torch.manual_seed(1)
    model = apply_stage(model, stage, Lora(r=4, alpha=8, dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would hide the gradient of lora_A
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train(), processor


def compare(rank, store, stage):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    whole, processor = prepared(stage)
    base = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    rows = rows_for(base, processor)
    expected = loss_of(whole, SAVEnVideoCollator(processor)(rows))
    expected.backward()

    model, _ = prepared(stage)
    inner = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model

    def reach(module, args, kwargs):  # as the trainer does
        return args, {**kwargs, "inputs_embeds": reach_connector(inner, kwargs["inputs_embeds"])}

    inner.language_model.register_forward_pre_hook(reach, with_kwargs=True)
    mesh = init_device_mesh("cpu", (2,))
    for module in reversed(list(model.modules())):
        if type(module).__name__ in WRAPPED.split(","):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    parameters = list(model.parameters())
    assert parameters and all(isinstance(parameter, DTensor) for parameter in parameters)
    local = sum(parameter.to_local().numel() for parameter in parameters)
    assert local < 0.6 * sum(parameter.numel() for parameter in parameters)

    batch = SAVEnVideoCollator(processor)(rows[rank::2])
    loss = loss_of(model, batch)
    (2 * loss).backward()  # the mean over processes is taken of gradients
    total = loss.detach().clone()
    dist.all_reduce(total)
    assert torch.allclose(total, expected, rtol=1e-5), (total, expected)
    learnt = trained_parameters(whole)
    for name, parameter in trained_parameters(model).items():
        gradient = learnt[name].grad
        assert torch.allclose(parameter.grad.full_tensor(), gradient, atol=1e-5 * gradient.abs().max().item()), name
    dist.barrier()
    dist.destroy_process_group()
    # All is compared. Python's own exit would tear down gloo's threads, and now and then abort in that.
    os._exit(0)


@pytest.mark.parametrize("stage", ["align-audio", "saven"])
def test_sharded_equals_whole(tmp_path, stage):
    mp.start_processes(compare, (str(tmp_path / "store"), stage), nprocs=2, start_method="spawn")

"""The runner of the ablations: which runs it makes, and two of them in miniature."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from small import save_small_model

from saven_hf import load
from saven_hf.training.curves import read_metrics


ROOT = Path(__file__).parents[2]
GRID = ROOT / "benchmarks" / "ablations.yaml"
ROWS = [{"kinds": {"span_caption": 1.0}, "turns": 1}]
RECIPE = {"max_steps": 2, "learning_rate": 1e-3}
SMALL = {
    "data": {
        "first_seed": 3_000_000_000, "scenes": [{"videos": 2, "segments": [2, 2]}], "rows": 1, "test_videos": 1,
        "check_videos": 1, "sampling": {"sampling": "uniform", "num_frames": 4},
    },
    "model": {
        "resampler_hidden_size": 24, "resampler_layers": 1, "resampler_heads": 4, "resampler_intermediate_size": 32,
        "queries_per_window": 4, "window_seconds": None, "window_frames": None,
    },
    "stages": [
        {"name": "align", "rows": ROWS, "recipe": {**RECIPE, "stage": "align-audio"}},
        {"name": "saven", "rows": ROWS, "recipe": {**RECIPE, "stage": "saven", "connector_learning_rate": 1e-3}},
    ],
    "recipe": {
        "global_batch_size": 2, "per_device_train_batch_size": 2, "precision": "float32", "lora": {"r": 4},
        "logging_steps": 1, "trainer": {"use_cpu": True, "disable_tqdm": True},
    },
    "factors": [1.0], "seeds": [0], "protocols": ["generate", "likelihood"], "max_new_tokens": 2,
    "experiments": {
        "connectors": {"title": "Connectors", "variants": {"avts": {}, "mlp_pool": {
            "factor_of": "avts", "use_audio": False, "model": {"resampler_type": "mlp_pool"}}}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def ablations():
    spec = importlib.util.spec_from_file_location("ablations", ROOT / "benchmarks" / "ablations.py")
    module = sys.modules["ablations"] = importlib.util.module_from_spec(spec)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("base"))


def written(path, **changes):
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def test_the_committed_grid_holds_what_was_announced(ablations):
    grid = ablations.Grid(GRID)
    assert {"avts", "mlp", "mlp_pool", "stc", "causal_qformer"} == set(grid.rows_of_table("connectors"))
    assert grid.rows_of_table("parts")[0] == "avts" and {"no_sound", "no_saven", "no_tlp"} < set(grid.variants)
    frames = {name: grid.sampling(grid.variants[name])["num_frames"] for name in grid.rows_of_table("frames")}
    assert sorted(frames.values()) == [16, 16, 64, 64, 256, 256]
    assert {grid.variants[name].model["queries_per_window"] for name in frames} == {32}
    assert len(grid.values["seeds"]) == 3
    kinds = {grid.variants[name].model.get("resampler_type", "avts") for name in grid.rows_of_table("connectors")}
    assert len(kinds) == 5
    steps = {stage["recipe"]["max_steps"] for stage in grid.values["stages"]}
    assert all("max_steps" not in variant.recipe for variant in grid.variants.values()) and min(steps) > 0


def test_every_variant_of_the_committed_grid_can_be_built_and_is_told_from_the_others(ablations, base):
    """Configurations that do not go together would be found hours later."""
    grid = ablations.Grid(GRID)
    bench = ablations.Bench.__new__(ablations.Bench)
    bench.base, bench.grid = base, grid
    first, _ = load(base, "cpu")
    seen = {}
    for name, variant in grid.variants.items():
        model, processor = bench.assemble(variant, seed=0)
        for part in ("vision_tower", "audio_tower", "language_model"):
            one, other = getattr(model.model, part), getattr(first.model, part)
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        recipe = {**grid.values["recipe"], **variant.recipe}
        told = {**model.config.connector_settings(), **grid.sampling(variant), **recipe}
        seen[name] = json.dumps([told, variant.use_audio, dict(variant.rows_of)], sort_keys=True)
        assert processor.token_layout.queries_per_window == model.config.queries_per_window
    assert len(set(seen.values())) == len(seen)


def test_runs_come_in_order_and_rates_are_chosen_on_one_seed(ablations, base, tmp_path):
    grid = ablations.Grid(written(tmp_path / "grid.yaml", factors=[0.5, 2.0], seeds=[3, 4]))
    bench = ablations.Bench(base, tmp_path / "out", grid)
    avts, pooled = (grid.variants[name] for name in ("avts", "mlp_pool"))
    losses = {0.5: 1.5, 2.0: 1.0}
    made = []
    # `mlp_pool` takes the rate of `avts`, so that one is searched first.
    while (job := ablations.next_job(bench, pooled)) is not None:
        made.append((job.variant.name, job.factor, job.seed))
        bench.folder(job).mkdir(parents=True)
        (bench.folder(job) / "result.json").write_text(
            json.dumps({"check_loss": losses[job.factor], "factor": job.factor})
        )
    assert made == [("avts", 0.5, 3), ("avts", 2.0, 3), ("mlp_pool", 2.0, 3), ("mlp_pool", 2.0, 4)]
    assert ablations.next_job(bench, avts) == ablations.Job(avts, 2.0, 4)
    shares = [ablations.wanted(bench, ["connectors"], None, (part, 2)) for part in range(2)]
    assert [[one.name for one in share] for share in shares] == [["avts", "mlp_pool"], []]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"experiments": {"x": {"title": "", "variants": {"a": {"factor_of": "b"}}}}}, "takes the rate of 'b'"),
        ({"experiments": {"x": {"title": "", "variants": {"a": {"modle": {}}}}}}, "modle"),
        ({"experiments": {"x": {"title": "", "variants": {"a": {"rows_of": {"saven": "tmp"}}}}}}, "no stage 'tmp'"),
        ({"experiments": {"x": {"title": "", "beside": ["b"], "variants": {"a": {}}}}}, "no variant 'b'"),
    ],
)
def test_a_grid_that_cannot_be_followed_is_refused(ablations, tmp_path, capsys, changes, said):
    grid = written(tmp_path / "grid.yaml", **changes)
    assert ablations.main(["--base", "x", "--out", str(tmp_path / "out"), "--grid", str(grid)]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_variants_are_trained_tested_and_laid_side_by_side(ablations, base, tmp_path, monkeypatch, capsys):
    out, grid = tmp_path / "out", written(tmp_path / "grid.yaml")
    words = ["--base", base, "--out", str(out), "--grid", str(grid)]
    assert ablations.main(words) == 0
    for name in ("avts", "mlp_pool"):
        folder = out / "runs" / name / "factor-1.seed-0"
        result = json.loads((folder / "result.json").read_text())
        assert [stage["steps"] for stage in result["stages"].values()] == [2, 2]
        assert result["check_loss"] > 0 and result["prefill_cpu_seconds"] > 0
        assert 4 <= result["tokens"] <= 6  # one window, and the times of the question
        assert json.loads((folder / "config.json").read_text())["variant"]["name"] == name
        for stage in ("align", "saven"):
            assert [line["step"] for line in read_metrics(folder / stage / "metrics.jsonl") if "loss" in line] == [
                1,
                2,
            ]
            recipe = yaml.safe_load((folder / stage / "recipe.yaml").read_text())
            assert recipe["use_audio"] == (name == "avts") and recipe["data"][0]["cache"]
        assert not list(folder.rglob("*.safetensors"))
        rows = [json.loads(line) for line in (folder / "items/world-iid.plain.jsonl").read_text().splitlines()]
        assert rows[0]["fed"]["frames"] == 4 and (rows[0]["fed"]["audio_seconds"] > 0) == (name == "avts")
    text = (out / "ablations.md").read_text()
    assert text in capsys.readouterr().out and text.count("| avts |") == text.count("| mlp_pool |") == 3
    # Nothing is trained again; a stage that was not finished is, and the same comes out.
    lost = out / "runs/mlp_pool/factor-1.seed-0"
    monkeypatch.setattr(ablations, "train", None)
    assert ablations.main(words) == 0 and (out / "ablations.md").read_text() == text
    assert ablations.main([*words, "--plan"]) == 0 and capsys.readouterr().out.count("complete") == 2
    monkeypatch.undo()
    before = json.loads((lost / "result.json").read_text())
    for path in sorted(lost.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert ablations.main(words) == 0
    assert json.loads((lost / "result.json").read_text())["check_loss"] == before["check_loss"]
    # The grid was committed before the results.
    written(tmp_path / "grid.yaml", max_new_tokens=3)
    assert ablations.main(words) == 2 and "another grid" in capsys.readouterr().err

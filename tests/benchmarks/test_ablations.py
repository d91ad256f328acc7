"""The runner of the ablations: which runs it makes, who makes them, and two of them in miniature."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from small import save_small_model

from saven_hf import load
from saven_hf.training.curves import read_metrics
from saven_hf.training.tiny import CONNECTOR, SAMPLING, TinyPlan, scenes_of
from saven_hf.world import sample_scene


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
    "moments": {"steps": 3, "batch_size": 2, "learning_rate": 3e-3},
    "stages": [
        {"name": "temporal", "rows": ROWS, "recipe": {**RECIPE, "stage": "temporal"}},
        {"name": "saven", "rows": ROWS, "recipe": {**RECIPE, "stage": "saven", "connector_learning_rate": 1e-3}},
    ],
    "recipe": {
        "global_batch_size": 2, "per_device_train_batch_size": 2, "precision": "float32", "lora": {"r": 4},
        "logging_steps": 1, "trainer": {"disable_tqdm": True},
    },
    "factors": [1.0], "seeds": [0], "protocols": ["generate", "likelihood"], "max_new_tokens": 2,
    "experiments": {
        "connectors": {"title": "Connectors", "tokens": "equal", "variants": {"avts": {}, "mlp_pool": {
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
    return save_small_model(tmp_path_factory.mktemp("base"), width=256)  # as wide as the code of moments


def written(path, **changes):
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def test_the_committed_grid_holds_what_was_announced(ablations):
    grid = ablations.Grid(GRID)
    assert list(grid.values["experiments"]) == ["connectors", "parts", "frames", "uncompressed", "sizes"]
    kinds = {
        name: [grid.variants[one].model.get("resampler_type", "avts") for one in grid.rows_of_table(name)]
        for name in grid.values["experiments"]
    }
    assert list(dict.fromkeys(kinds["connectors"])) == ["avts", "mlp_pool", "stc", "causal_qformer"]
    assert kinds["uncompressed"] == ["avts", "mlp_pool", "mlp"]
    assert len({str(grid.sampling(grid.variants[name])) for name in grid.rows_of_table("uncompressed")}) == 1
    assert [name for name, one in grid.values["experiments"].items() if one.get("tokens") == "equal"] == ["connectors"]
    assert grid.variants["stc_pool"].model["stc_tokens_per_window"] == grid.values["model"]["queries_per_window"]
    assert grid.rows_of_table("parts")[0] == "avts" and {"no_sound", "no_saven", "no_tlp"} < set(grid.variants)
    frames = {name: grid.sampling(grid.variants[name])["num_frames"] for name in grid.rows_of_table("frames")}
    assert sorted(frames.values()) == [16, 16, 64, 64, 256, 256]
    assert {grid.variants[name].model["queries_per_window"] for name in frames} == {32}
    assert len(grid.values["seeds"]) == 3
    steps = {stage["recipe"]["max_steps"] for stage in grid.values["stages"]} | {grid.values["moments"]["steps"]}
    assert all("max_steps" not in variant.recipe for variant in grid.variants.values()) and min(steps) > 0


def test_the_longer_training_is_that_of_the_tiny_model(ablations):
    grid, plan = ablations.Grid(GRID.with_name("ablations_long.yaml")), TinyPlan.for_device("cuda")
    assert grid.values["model"] == CONNECTOR and grid.values["data"]["sampling"] == SAMPLING
    assert (grid.values["moments"]["steps"], grid.values["moments"]["batch_size"]) == (
        plan.connector_steps, plan.connector_batch,
    )  # fmt: skip
    first, parts = grid.values["data"]["first_seed"], grid.values["data"]["scenes"]
    scenes = [sample_scene(first + number, segments=one) for number, one in enumerate(ablations._segments(parts))]
    assert scenes == list(scenes_of(plan))
    assert [one for one in grid.values["experiments"].values() if one.get("tokens") != "equal"] == []


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


def test_rates_are_chosen_on_one_seed_and_only_the_chosen_one_is_tested(ablations, base, tmp_path, monkeypatch):
    grid = ablations.Grid(written(tmp_path / "grid.yaml", factors=[0.5, 2.0], seeds=[3, 4]))
    bench = ablations.Bench(base, tmp_path / "out", grid)
    pooled = grid.variants["mlp_pool"]
    losses, made = {0.5: 1.5, 2.0: 1.0}, []

    def note(bench, job, file):
        bench.folder(job).mkdir(parents=True, exist_ok=True)
        (bench.folder(job) / file).write_text(json.dumps({"check_loss": losses[job.factor], "factor": job.factor}))

    def train(bench, job):
        if bench.trained(job) is None:
            made.append((job.variant.name, job.factor, job.seed))
            note(bench, job, "trained.json")

    def finish(bench, variant, seed):
        job = ablations.Job(variant, ablations.chosen_factor(bench, variant), seed)
        bench.train(job)
        made.append((variant.name, "tested", seed))
        note(bench, job, "result.json")

    monkeypatch.setattr(ablations.Bench, "train", train)
    monkeypatch.setattr(ablations.Bench, "finish", finish)
    todo = [work for work in ablations.works(bench, [pooled]) if "/" in work.name]
    for work in (*bench.videos, *bench.conversations, *bench.caching(pooled)):
        (bench.out / "done").mkdir(exist_ok=True)
        (bench.out / "done" / work.name).touch()
    assert not todo[2].is_ready()  # no rate is chosen yet
    assert ablations.work_off(todo, tmp_path / "locks") == []
    # `mlp_pool` takes the rate of `avts`, so that one is searched first.
    assert made == [
        *(("avts", 0.5, 3), ("avts", 2.0, 3)),
        *(("mlp_pool", 2.0, 3), ("mlp_pool", "tested", 3), ("mlp_pool", 2.0, 4), ("mlp_pool", "tested", 4)),
    ]
    assert not any((bench.folder(job) / "result.json").is_file() for job in [ablations.Job(pooled, 0.5, 3)])


HOLD = """
import sys, time
sys.path.insert(0, {folder!r})
import ablations
from pathlib import Path
with ablations.claimed(Path({lock!r})) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(ablations, tmp_path):
    lock = tmp_path / "locks" / "avts" / "seed-0.lock"
    script = HOLD.format(folder=str(ROOT / "benchmarks"), lock=str(lock))
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with ablations.claimed(lock) as mine:
        assert not mine
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with ablations.claimed(lock) as mine:
        assert mine


def test_what_fails_holds_up_what_needs_it_and_nothing_else(ablations, tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "_POLL_SECONDS", 0.01)
    done = set()

    def work(name, needs=(), error=None):
        def do():
            if error is not None:
                raise error
            done.add(name)

        return ablations.Work(name, do, lambda: name in done, lambda: done.issuperset(needs))

    todo = [work("late", ["early"]), work("bad", error=ValueError("no")), work("after", ["bad"]), work("early")]
    assert ablations.work_off(todo, tmp_path) == ["bad"] and done == {"early", "late"}
    done.clear()
    assert ablations.work_off(todo, tmp_path, deadline=time.monotonic() - 1) == [] and not done


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"experiments": {"x": {"title": "", "tokens": "few", "variants": {"a": {}}}}}, "tokens: 'few'"),
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


def put(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_record_has_every_training_and_names_no_folder(tmp_path):
    runs = tmp_path / "out" / "runs"
    for factor, tested in ((0.3, False), (1, True)):
        folder, made = runs / "pooled" / f"factor-{factor}.seed-0", {"factor": factor, "seed": 0, "device": "cpu"}
        model = {"resampler_type": "mlp_pool"}
        put(folder / "config.json", {"variant": {"name": "pooled", "model": model, "use_audio": False, "recipe": {}}})
        stages = {"moments": {"steps": 30, "loss": 0.5}, "saven": {"steps": 20, "loss": 0.25, "merged": True}}
        trained = {**made, "stages": stages, "check_loss": 0.123456, "model": str(tmp_path)}
        put(folder / "trained.json", trained)
        put(folder / "moments" / "losses.jsonl", *({"step": at, "loss": 1.0 - (at >= 20)} for at in range(30)))
        put(folder / "saven" / "metrics.jsonl", {"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25}, {"step": 20})
        if tested:
            put(folder / "result.json", {**trained, "tokens": 62.0})
            choice = {"form": "choice", "tags": {"question_type": "global"}}
            answers = [{**choice, "correct": True}, {**choice, "correct": False}, {"form": "range", "iou": 0.5}]
            put(folder / "items" / "world-iid.plain.jsonl", *answers)
    put(runs / "pooled" / "factor-3.seed-0" / "config.json", {"variant": {"name": "pooled"}})  # not trained yet
    command = [
        sys.executable,
        ROOT / "benchmarks" / "ablation_record.py",
        "--docs",
        tmp_path / "record.jsonl",
        "--out",
    ]
    said = subprocess.run([*command, tmp_path / "out"], capture_output=True, text=True, check=True).stdout
    assert "2 trainings, 1 of them tested" in said
    text = (tmp_path / "record.jsonl").read_text()
    slow, chosen = map(json.loads, text.splitlines())
    assert str(tmp_path) not in text and (slow["factor"], chosen["factor"]) == (0.3, 1)
    assert slow["tested"] is None and slow["check_loss"] == 0.1235
    assert slow["changes"] == {"model": {"resampler_type": "mlp_pool"}, "use_audio": False}
    assert slow["stages"]["moments"] == {"steps": 30, "loss": 0.5, "losses": [[20, 1.0], [30, 0.0]]}
    assert slow["stages"]["saven"] == {"steps": 20, "loss": 0.25, "losses": [[10, 0.5], [20, 0.25]]}
    answers = {"world-iid.plain": {"choice, global": [1, 2], "range": [0.5, 1]}}
    assert chosen["tested"] == {"tokens": 62.0, "answers": answers}
    refused = subprocess.run([*command, tmp_path / "nothing"], capture_output=True, text=True)
    assert refused.returncode == 2 and "no complete training" in refused.stderr


@pytest.mark.slow
def test_two_variants_are_made_by_two_processes_and_laid_side_by_side(ablations, base, tmp_path, monkeypatch, capsys):
    out, grid = tmp_path / "out", written(tmp_path / "grid.yaml")
    words = ["--base", base, "--out", str(out), "--grid", str(grid), "--device", "cpu"]
    assert ablations.main([*words, "--jobs", "2"]) == 0
    said = [(out / "logs" / f"{number}.log").read_text() for number in range(2)]
    for name in ("avts", "mlp_pool"):
        folder = out / "runs" / name / "factor-1.seed-0"
        assert sum(log.splitlines().count(f"{name}/seed-0") for log in said) == 1  # each by one process, once
        result = json.loads((folder / "result.json").read_text())
        assert [stage["steps"] for stage in result["stages"].values()] == [3, 2, 2]
        assert {stage["device"] for stage in result["stages"].values()} == {result["device"]} == {"cpu"}
        assert result["check_loss"] > 0 and result["prefill_cpu_seconds"] > 0
        assert 4 <= result["tokens"] <= 6  # one window, and the times of the question
        config = json.loads((folder / "config.json").read_text())
        assert config["variant"]["name"] == name and config["device"] == "cpu"
        assert len((folder / "moments" / "losses.jsonl").read_text().splitlines()) == 3
        for stage in ("temporal", "saven"):
            steps = [line["step"] for line in read_metrics(folder / stage / "metrics.jsonl") if "loss" in line]
            assert steps == [1, 2]
            recipe = yaml.safe_load((folder / stage / "recipe.yaml").read_text())
            assert recipe["use_audio"] == (name == "avts") and recipe["data"][0]["cache"]
        assert not list(folder.rglob("*.safetensors"))
        rows = [json.loads(line) for line in (folder / "items/world-iid.plain.jsonl").read_text().splitlines()]
        assert rows[0]["fed"]["frames"] == 4 and (rows[0]["fed"]["audio_seconds"] > 0) == (name == "avts")
    text = (out / "ablations.md").read_text()
    assert text in capsys.readouterr().out and text.count("| avts |") == text.count("| mlp_pool |") == 3
    assert "2 on cpu" in text
    # Nothing is trained again; what was lost is, and the same comes out.
    monkeypatch.setattr(ablations, "train", None)
    assert ablations.main(words) == 0 and (out / "ablations.md").read_text() == text
    assert ablations.main([*words, "--plan"]) == 0 and capsys.readouterr().out.count("1 of 1 seeds are finished") == 2
    monkeypatch.undo()
    lost = out / "runs/mlp_pool/factor-1.seed-0"
    before = json.loads((lost / "result.json").read_text())
    for path in sorted(lost.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert ablations.main(words) == 0
    assert json.loads((lost / "result.json").read_text())["check_loss"] == before["check_loss"]
    # A table of equal tokens has them.
    (lost / "result.json").write_text(json.dumps({**before, "tokens": 1.06 * before["tokens"]}))
    assert ablations.main([*words, "--tables-only"]) == 2 and "equal tokens" in capsys.readouterr().err
    # The grid was committed before the results.
    written(tmp_path / "grid.yaml", max_new_tokens=3)
    assert ablations.main(words) == 2 and "another grid" in capsys.readouterr().err

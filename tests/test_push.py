"""`saven push`: what the plan says is what arrives, and what arrives can be read without this package."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from hub_double import TOKEN, HubDouble

from saven_hf.cli import main
from saven_hf.data.builder import EMBEDDED
from saven_hf.data.release import build_savenvid
from saven_hf.push import PushError, plan_upload, push


ROOT = Path(__file__).parents[1]
SHARD = "data/qa/train-00000-of-00001.parquet"
MODEL = ROOT / "hub_configs" / "savenvideo-7b"  # without weights


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubDouble(tmp_path / "hub") as double:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", double.endpoint)
        template = double.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield double


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The embedded set with its videos in the rows, as one would push it."""
    folder = tmp_path_factory.mktemp("push") / "savenvid"
    build_savenvid([EMBEDDED / "savenvid"], folder)
    return folder


def names(plan):
    return [name for name, _ in plan.files]


def test_a_dataset_arrives_as_planned(hub, dataset, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(dataset, folder)
    (folder / "data" / "qa" / "train.99.partial").write_bytes(b"half")
    (folder / ".env").write_text("HF_TOKEN=secret")
    (folder / "work" / "caption").mkdir(parents=True)
    (folder / "work" / "caption" / "a.json").write_text("{}")
    plan = plan_upload(folder, "me/savenvid")
    assert plan.repo_type == "dataset" and plan.bytes == sum((folder / name).stat().st_size for name in names(plan))
    assert dict(plan.left_out) == {
        ".env": "may hold secrets",
        "data/qa/train.99.partial": "not complete",
        "work/caption/a.json": "state of building",
    }
    url = push(plan, private=True, message="The first rows")
    arrived = hub.files("dataset", "me/savenvid")
    assert sorted({*arrived} - {".gitattributes"}) == names(plan)
    assert all(arrived[name] == (folder / name).read_bytes() for name in names(plan))
    assert url.startswith(f"{hub.endpoint}/datasets/me/savenvid/commit/")
    commits = hub.repos["dataset", "me/savenvid"]
    assert commits[-1]["message"] == "The first rows"
    settings = hub.settings["dataset", "me/savenvid"]
    assert settings.get("private") or settings.get("visibility") == "private"
    # A second time, nothing large is sent again.
    before = len(hub.requests)
    push(plan)
    assert not [request for request in hub.requests[before:] if request.startswith("PUT")]


STREAM = """
import sys
sys.modules["saven_hf"] = None  # as if it were not installed
from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset
print(get_dataset_config_names("me/savenvid"), get_dataset_split_names("me/savenvid", "sft"))
rows = load_dataset("me/savenvid", split="train", streaming=True)
row = next(iter(rows))
print(type(row["video"]).__name__, tuple(row["video"][0].shape), row["question_type"], row["options"][0])
print(len(list(load_dataset("me/savenvid", "captions", split="train"))))
messages = next(iter(load_dataset("me/savenvid", "sft", split="train", streaming=True)))
print(messages["messages"][0]["content"][0], tuple(messages["videos"][0][0].shape))
"""


# olah sends whole files whatever range is asked for, so nothing can be streamed from it.
DOWNLOAD = """
import sys
sys.modules["saven_hf"] = None
from datasets import load_dataset
row = load_dataset("me/savenvid", split="train")[0]
print(type(row["video"]).__name__, tuple(row["video"][0].shape))
"""


def read_without_our_package(code, endpoint, home):
    """What a process says that knows nothing of saven_hf and reads the dataset from a server."""
    pytest.importorskip("torchcodec", reason="datasets decodes videos with torchcodec")
    own = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_TOKEN": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **own}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_was_pushed_streams_without_our_package(hub, dataset, tmp_path):
    push(plan_upload(dataset, "me/savenvid"))
    said = read_without_our_package(STREAM, hub.endpoint, tmp_path / "home")
    assert said[0] == "['qa', 'captions', 'videos', 'sft'] ['train']"
    assert said[1].startswith("VideoDecoder (3, 64, 64) ") and said[2] == "48"
    assert said[3] == "{'type': 'video', 'text': None} (3, 64, 64)"
    assert any(request.startswith("GET /datasets/me/savenvid/resolve/") for request in hub.requests)


@pytest.mark.slow
def test_a_server_of_others_serves_it_too(dataset, tmp_path):
    """olah is a mirror of the Hub that others wrote; here it serves a git repository of what we would push."""
    olah = shutil.which("olah-cli")
    if olah is None:
        pytest.skip("there is no olah-cli: pip install olah==0.5.4, in an environment of its own")
    repository = tmp_path / "mirror" / "datasets" / "me" / "savenvid"
    plan = plan_upload(dataset, "me/savenvid")
    for name in names(plan):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset / name, repository / name)
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-qm", "rows"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"""
[basic]
host = "127.0.0.1"
port = {port}
repos-path = "{tmp_path / "repos"}"
mirrors-path = ["{tmp_path / "mirror"}"]
[accessibility]
offline = true
"""
    (tmp_path / "olah.toml").write_text(settings)
    server = subprocess.Popen([olah, "-c", tmp_path / "olah.toml"], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        said = read_without_our_package(DOWNLOAD, f"http://127.0.0.1:{port}", tmp_path / "home")
        assert said == ["VideoDecoder (3, 64, 64)"]
    finally:
        server.terminate()
        server.wait(60)


def test_a_dry_run_sends_and_writes_nothing(hub, dataset, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    for folder in (dataset, model):
        before = sorted(path for path in folder.rglob("*"))
        assert main(["push", str(folder), "me/thing", "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert "nothing was sent (--dry-run)" in said and f"{plan_upload(folder, 'me/thing')}" in said
        assert sorted(path for path in folder.rglob("*")) == before
    assert main(["push", str(model), "me/thing", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["url"] is None and found["repo_type"] == "model" and "library_name" in found["made_card"]
    assert hub.requests == []


def test_a_model_gets_a_card_and_comes_back(hub, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    (model / "checkpoint-5").mkdir()
    (model / "checkpoint-5" / "optimizer.pt").write_bytes(b"state")
    plan = plan_upload(model, "me/tiny")
    assert "README.md" in names(plan) and ("checkpoint-5/optimizer.pt", "state of training") in plan.left_out
    assert any("no weights" in note for note in plan.notes) and any("no licence" in note for note in plan.notes)
    assert main(["push", str(model), "me/tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"].startswith(f"{hub.endpoint}/me/tiny/commit/")
    arrived = hub.files("model", "me/tiny")
    assert sorted({*arrived} - {".gitattributes"}) == names(plan)
    assert arrived["README.md"].decode() == plan.made_card == (model / "README.md").read_text()
    back = huggingface_hub.snapshot_download("me/tiny", cache_dir=tmp_path / "cache")
    assert (Path(back) / "config.json").read_bytes() == (MODEL / "config.json").read_bytes()


def test_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "me/base"}))
    with pytest.raises(PushError, match="no weights of an adapter"):
        plan_upload(tmp_path, "me/lora")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    card = plan_upload(tmp_path, "me/lora").made_card
    assert "base_model: me/base" in card and "library_name: peft" in card


def space(folder):
    folder.mkdir()
    (folder / "README.md").write_text("---\ntitle: Mine\nsdk: gradio\nsdk_version: 6.31.0\napp_file: main.py\n---\n")
    (folder / "main.py").write_text("import gradio\n")
    return folder


def test_a_space(hub, tmp_path):
    plan = plan_upload(space(tmp_path / "space"), "me/review")
    assert plan.repo_type == "space" and any("requirements.txt" in note for note in plan.notes)
    assert push(plan, create_pr=True) == f"{hub.endpoint}/spaces/me/review/discussions/1"
    assert hub.settings["space", "me/review"]["sdk"] == "gradio"
    assert "main.py" in hub.files("space", "me/review")


@pytest.mark.parametrize(
    ("make", "repo", "said"),
    [
        (lambda path: path / "none", "me/x", "is no folder"),
        (lambda path: path, "savenvid", "no namespace: write it as your-name/savenvid"),
        (lambda path: path, "me/a b", "is no name of a repository"),
        (lambda path: path, "me/x", "is no dataset .* no model .* and no Space"),
        (lambda path: broken(path, "README.md", None), "me/x", "has no README.md: a dataset needs its card"),
        (
            lambda path: broken(path, "data/qa/train-00000-of-00001.parquet", b"PAR1half"),
            "me/x",
            "no complete parquet",
        ),
        (lambda path: broken(path, "data/qa/train-00000-of-00001.parquet", None), "me/x", "'qa' has a split 'train'"),
        (lambda path: broken(path, "README.md", b"---\na: [\n---\n"), "me/x", "cannot be read"),
        (lambda path: broken(space(path / "s"), "main.py", None), "me/x", "names main.py as the application"),
    ],
)
def test_what_cannot_be_pushed(make, repo, said, tmp_path, capsys):
    assert main(["push", str(make(tmp_path)), repo]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    with pytest.raises(PushError, match=said):
        raise PushError(printed)


def broken(path, name, content):
    """A dataset (or the folder given) with a file that is missing or another."""
    if not (path / "main.py").is_file():
        shutil.copytree(EMBEDDED / "savenvid", path / "d")
        path = path / "d"
        for shard in path.glob("data/qa/*"):
            shutil.copy(shard, path / SHARD)
            shard.unlink()
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    return path


def test_a_server_that_refuses_or_is_not_there(hub, tmp_path, monkeypatch, capsys):
    folder = space(tmp_path / "space")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert main(["push", str(folder), "me/review"]) == 2
    assert "log in with `hf auth login`" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.fail.append(["POST .*/commit/", 500, 100])
    with pytest.raises(PushError, match="refused"):
        push(plan_upload(folder, "me/review"))
    assert "main.py" not in hub.files("space", "me/review")
    hub.fail.clear()
    push(plan_upload(folder, "me/review"))  # goes on as if nothing had happened
    assert "main.py" in hub.files("space", "me/review")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="http://127.0.0.1:9 cannot be reached"):
        push(plan_upload(folder, "me/review"))

"""Tasks for lmms-eval and the model it runs, with a double in its place: `make lmms-eval` takes the real one."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from fakes import Fake

from saven_hf.evaluation import BenchmarkFileError, MusicAVQA, Watched, lmms_plugin
from saven_hf.evaluation.lmms_plugin import main, write_task
from saven_hf.evaluation.text_metrics import caption_metrics


yaml = pytest.importorskip("yaml")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def music(tmp_path):
    rows = [
        {"video_id": f"{video:08d}", "question_id": 2 * video + number, "type": '["Audio", "Counting"]',
         "question_content": "Is there a <Object> sound?", "templ_values": '["flute"]', "anser": answer}
        for video in (1, 2) for number, answer in enumerate(("yes", "no"))
    ]  # fmt: skip
    folder = tmp_path / "MUSIC-AVQA"
    touch(folder, "videos/00000001.mp4", "videos/00000002.mp4")
    (folder / "json_update").mkdir()
    (folder / "json_update" / "avqa-test.json").write_text(json.dumps(rows))
    return folder


class _Loader(yaml.SafeLoader):
    """`!function utils.name` as lmms-eval reads it."""


def task(folder):
    """A task as lmms-eval sees it: its YAML with functions, and its rows."""
    utils = {}
    exec((folder / "utils.py").read_text(), utils)
    _Loader.add_constructor("!function", lambda loader, node: utils[node.value.removeprefix("utils.")])
    config = yaml.load((folder / f"{folder.name}.yaml").read_text(), _Loader)
    rows = [json.loads(line) for line in open(config["dataset_kwargs"]["data_files"]["test"], encoding="utf-8")]
    return config, rows


def results(config, rows, answer):
    """What lmms-eval reports: values by metric, aggregated over those rows that have it."""
    values = {}
    for row in rows:
        for metric, value in config["process_results"](row, [answer(row)]).items():
            values.setdefault(metric, []).append(value)
    return {one["metric"]: one["aggregation"](values[one["metric"]]) for one in config["metric_list"]}


def test_a_task_asks_and_scores_as_the_benchmark_does(music, tmp_path):
    folder = write_task("music-avqa", music, tmp_path / "tasks")
    assert folder == tmp_path / "tasks" / "music_avqa"
    config, rows = task(folder)
    assert config["task"] == "music_avqa" and [one["metric"] for one in config["metric_list"]] == ["accuracy"]
    benchmark = MusicAVQA(music)
    items = [item for video in benchmark.video_ids for item in benchmark.items(video)]
    assert [config["doc_to_text"](row) for row in rows] == [benchmark.prompt(item) for item in items]
    assert [config["doc_to_target"](row) for row in rows] == ["yes", "no"] * 2
    (message,) = config["doc_to_messages"](rows[0])
    assert message["content"][0] == {"type": "video", "url": str(music / "videos" / "00000001.mp4")}
    assert config["doc_to_visual"](rows[0]) == [str(music / "videos" / "00000001.mp4")]
    # The normaliser, which the words alone do not have.
    assert results(config, rows, lambda row: "Yes, there is a flute.")["accuracy"] == 0.5
    assert results(config, rows, lambda row: row["answer"].upper())["accuracy"] == 1
    with pytest.raises(BenchmarkFileError, match="write the task again"):
        config["process_results"]({**rows[0], "id": "gone"}, ["yes"])


def test_captions_and_transcripts_have_metrics_of_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)  # Java takes its time, and changes the tokenizer alone
    pytest.importorskip("pycocoevalcap")
    pytest.importorskip("jiwer")
    texts = ["a dog barks in the rain", "two people talk about music", "an engine starts and stops"]
    data = [{"audio": f"{at}.wav", "answer": text} for at, text in enumerate(texts)]
    data.append({"audio": "3.wav", "kind": "transcript", "answer": "hello out there"})
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    touch(tmp_path, *(f"{at}.wav" for at in range(4)))
    config, rows = task(write_task("open-qa", tmp_path, tmp_path / "tasks"))
    assert len(rows) == 4
    said = {"0": texts[0], "1": "people talk", "2": "a car", "3": "hello there"}
    found = results(config, rows, lambda row: said[row["id"]])
    expected = caption_metrics([said[str(at)] for at in range(3)], [[text] for text in texts], list("abc"))
    assert found["cider"] == pytest.approx(expected["cider"]["value"]) and found["cider"] > 0
    assert found["rouge_l"] == pytest.approx(expected["rouge_l"]["value"])
    assert found["bleu_4"] == pytest.approx(expected["bleu_4"])
    assert found["wer"] == pytest.approx(1 / 3) and found["accuracy"] == 0


def test_one_command_writes_all_tasks(music, tmp_path, capsys):
    save = tmp_path / "SAVE"
    touch(save, "a.mp4", "d.mp4")
    choice = {"image": "a.mp4", "question": "what?", "answer": "two", "answer_candidates": ["a", "two", "c"]}
    (save / "nextqa_test.json").write_text(json.dumps([choice]))
    dialogue = {"image_name": ["d.mp4", "d.wav"], "conversation": [["Who?", "A man."]]}
    (save / "avsd_subset.json").write_text(json.dumps([dialogue]))
    (save / "avbench.jsonl").write_text(json.dumps(
        {"id": "1", "video": "a.mp4", "question": "?", "options": ["x", "y"], "answer": "B"}
    ))  # fmt: skip
    out = tmp_path / "tasks"
    words = [f"avbench={save / 'avbench.jsonl'}", f"music_avqa={music}", f"aveb={save}", "--out", str(out)]
    assert main(words) == 0
    assert sorted(path.name for path in out.iterdir() if (path / f"{path.name}.yaml").is_file()) == [
        "avbench", "aveb_avsd", "aveb_video_qa", "music_avqa",
    ]  # fmt: skip
    assert "no aveb_asr: " in capsys.readouterr().err  # it says what it has not found
    assert [one["metric"] for one in task(out / "aveb_avsd")[0]["metric_list"]] == ["cider", "rouge_l", "bleu_4"]
    assert main([f"aveb={music / 'videos'}", "--out", str(out)]) == 2
    assert main([f"music_avqa={music}", "--split", "test-original", "--out", str(out)]) == 2
    for wrong in (["moon=here"], ["avbench"], [f"aveb={save}", f"avbench={save}", "--split", "x"]):
        with pytest.raises(SystemExit):
            main([*wrong, "--out", str(out)])


@pytest.fixture
def harness(monkeypatch):
    """As much of lmms-eval as the plug-in imports."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.instance", "lmms_eval.api.model", "lmms_eval.models",
             "lmms_eval.models.registry_v2")  # fmt: skip
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lmms_eval.api.instance"].Instance = SimpleNamespace
    sys.modules["lmms_eval.api.model"].lmms = type("lmms", (), {})
    sys.modules["lmms_eval.models.registry_v2"].ModelManifest = SimpleNamespace
    monkeypatch.delitem(sys.modules, "saven_hf.evaluation.lmms_model", raising=False)
    yield
    sys.modules.pop("saven_hf.evaluation.lmms_model", None)


def test_the_manifest_names_the_model(harness):
    import importlib
    from importlib.metadata import entry_points

    found = lmms_plugin.manifest()
    module, _, name = found.chat_class_path.rpartition(".")
    assert found.model_id == "saven" and hasattr(importlib.import_module(module), name)
    (point,) = entry_points(group="lmms_eval.models", name="saven")
    assert point.load() is lmms_plugin.manifest


def test_answers_come_after_as_many_videos_as_are_asked_together(harness, music, tmp_path):
    from saven_hf.evaluation.lmms_model import SAVEnLmms

    config, rows = task(write_task("music-avqa", music, tmp_path / "tasks"))
    log = []

    class Logs(Fake):
        max_new_tokens = 48

        def watch(self, media, control):
            log.append(media.name)
            return Watched(media)

        def answer(self, asked, progress=None):
            log.append(len(asked))
            return super().answer(asked)

    model = SAVEnLmms.__new__(SAVEnLmms)  # its own constructor loads a model
    model.task_dict = {"music_avqa": {"test": rows}}
    requests = [
        SimpleNamespace(args=(None, config["doc_to_messages"], {"max_new_tokens": 48}, at, "music_avqa", "test"))
        for at in (0, 1, 2, 3, 0)
    ]
    for together, expected in ((1, ["00000001.mp4", 2, "00000002.mp4", 2, "00000001.mp4", 1]),
                               (2, ["00000001.mp4", "00000002.mp4", 4, "00000001.mp4", 1])):  # fmt: skip
        log.clear()
        model.adapter = Logs(lambda one: one.watched.state.stem + one.item.id, media_at_once=together)
        answers = model.generate_until(requests)
        assert log == expected
        assert answers == [f"0000000{at // 2 + 1}music_avqa-{at}" for at in (0, 1, 2, 3, 0)]
    requests[1].args[2]["max_new_tokens"] = 5  # what an answer may be long belongs to its own batch
    log.clear()
    model.generate_until(requests)
    assert model.adapter.max_new_tokens == 48 and log[:3] == ["00000001.mp4", 1, "00000001.mp4"]

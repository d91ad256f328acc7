"""A newcomer's first try: the Python of the README, as it stands there."""

import re
from pathlib import Path

from clip import render


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_readme_examples_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    render("clip.mp4")
    render("lecture.mp4")
    scope = {}
    for block in python_blocks():
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["inputs"]["query_times"].tolist() == [[1_000_000, 5_000_000]]
    assert (tmp_path / "lecture.safetensors").is_file()
    assert scope["memory"].num_frames == 12


def test_readme_names_files_that_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).exists(), target

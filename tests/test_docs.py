"""Every code block of README.md and docs/ runs, or says above itself why not.

A page's blocks run in order in one folder that is empty but for the media it names. A block below
`<!-- not run: REASON -->` is read instead: commands parse, recipes, extras and files exist, Python compiles and its
imports resolve. A page with a block below `<!-- slow -->` runs as a slow test. Blocks of "text", "yaml" and "json" are
no code to run. And every name in backticks in docs/paper.md is there.
"""

import ast
import importlib.util
import inspect
import re
import shlex
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from clip import render

import saven_hf
from saven_hf import SAVEnVideoConfig, SAVEnVideoVideoProcessor
from saven_hf.cli import _parser, main
from saven_hf.data.schema import CHECKS as CHECKS_OF_ROWS
from saven_hf.training.recipe import explain, from_dict, load_recipe, shipped_recipes
from saven_hf.world import sample_scene, write_video


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
DATA = ("text", "yaml", "json")
CONFIG = set(inspect.signature(SAVEnVideoConfig.__init__).parameters) - {"self", "kwargs"}
FRAMES = {"sampling", "num_frames", "fps", "max_frames", "preprocessing"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    code: str
    mark: str

    @property
    def why_not(self) -> str | None:
        found = re.fullmatch(r"not run: (\S.{9,})", self.mark)
        return found[1] if found else None

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page.relative_to(ROOT).as_posix(),
            text.count("\n", 0, found.start("code")),
            found["language"],
            found["code"],
            found["mark"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language not in DATA]
RUN = {
    page: [block for block in BLOCKS if block.page == page and block.why_not is None]
    for page in dict.fromkeys(block.page for block in BLOCKS)
}


def commands_of(code):
    """Commands as lists of words: lines that end with a backslash are joined, comments and loops are left out."""
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;", re.sub(r"(^|\s)#.*", "", line)):
            words = shlex.split(part)
            if words and words[0] not in ("for", "do", "done"):
                yield words


# ------------------------------------------------------------------------------------------------------------ running


def prepare(blocks):
    """The media that a page names, in the current folder."""
    named = " ".join(block.code for block in blocks)
    for name in ("clip.mp4", "lecture.mp4"):
        if re.search(rf"(?<![/\w]){name}", named):
            render(name)
    if "videos/" in named:
        Path("videos").mkdir()
        for seed in (0, 1, 2):
            name = "clip" if seed == 0 else f"clip{seed}"
            write_video(sample_scene(seed, "iid", 4), Path("videos") / f"{name}.mp4", (32, 32))


def run_page(page, monkeypatch):
    prepare(RUN[page])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    scope = {"__name__": "__main__"}
    for block in RUN[page]:
        if block.language == "python":
            exec(compile(block.code, str(block), "exec"), scope)
            continue
        for words in commands_of(block.code):
            assert words[0] == "saven", f"{block}: {words[0]!r} is not run here: mark the block"
            assert main(words[1:]) == 0, f"{block}: {' '.join(words)}"
    return scope


def check_readme(scope, said):
    assert scope["inputs"]["query_times"].tolist() == [[1_000_000, 5_000_000]]


def check_long_videos(scope, said):
    assert Path("lecture.safetensors").is_file() and scope["memory"].num_frames == 12
    # What the model answered stands above that.
    assert "2 questions answered in answers.jsonl" in said and said.split("\n2 questions")[0].splitlines()[-1].strip()


def check_data(scope, said):
    assert "2 rows, 3 answers, 1 videos, 1 audios" in said


def check_datasets(scope, said):
    assert len(scope["seen"]) == 20 and len({*scope["seen"], *scope["rest"]}) == 60


def check_world(scope, said):
    assert Path("late.mp4").is_file() and "from 00:00:00.000 to " in said.lower()


def check_build(scope, said):
    assert "questions; []" in said and 0 < len(scope["kept"]) <= len(scope["questions"])


def check_first_hour(scope, said):
    assert "3 videos in mine" in said and "updates, loss" in said and "| avbench.plain |" in said
    assert "license: cc-by-4.0" in Path("mine/README.md").read_text()
    assert "model-index:" in said and said.count("nothing was sent (--dry-run)") == 2


CHECKS = {
    "README.md": check_readme,
    "docs/long_videos.md": check_long_videos,
    "docs/data.md": check_data,
    "docs/datasets.md": check_datasets,
    "docs/world.md": check_world,
    "docs/build.md": check_build,
    "docs/first_hour.md": check_first_hour,
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if any(block.mark == "slow" for block in blocks) else [])
        for page, blocks in RUN.items()
        if blocks
    ],
)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    if page in ("docs/build.md", "docs/first_hour.md"):
        pytest.importorskip("datatrove", reason="builds run on datatrove: pip install saven-hf[pipeline]")
    if page == "docs/datasets.md":
        pytest.importorskip("torchcodec", reason="datasets decodes videos with torchcodec")
    monkeypatch.chdir(tmp_path)
    scope = run_page(page, monkeypatch)
    CHECKS.get(page, lambda scope, said: None)(scope, capsys.readouterr().out)


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_run_or_says_why_not(block):
    assert block.language in ("bash", "python"), f"{block}: say what it is: bash, python, or one of {DATA}"
    assert block.mark in ("", "slow") or block.why_not, f"{block}: {block.mark!r} is no reason"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.why_not], ids=str)
def test_a_block_that_is_not_run_could_be(block):
    if block.language == "python":
        check_imports(ast.parse(block.code), block)
    else:
        for words in commands_of(block.code):
            check_command(words, block)


def check_imports(tree, block):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{block}: {node.module} has no {name.name}"


def check_command(words, block):
    program, *rest = words
    if program == "accelerate":
        assert rest[0] == "launch", block
        if "--config_file" in rest:
            assert (ROOT / rest[rest.index("--config_file") + 1]).is_file(), block
        check_saven(rest[rest.index("saven_hf.cli") + 1 :], block)
    elif program == "saven":
        check_saven(rest, block)
    elif program == "python":
        if rest[0] == "-m":
            assert rest[1] == "lmms_eval" or importlib.util.find_spec(rest[1]), block
        else:
            assert (ROOT / rest[0]).is_file(), f"{block}: there is no {rest[0]}"
            scripts = (ROOT / rest[0]).parent.glob("*.py")  # they share options
            options = [one for script in scripts for one in re.findall(r'"(--[a-z-]+)"', script.read_text())]
            given = [word.partition("=")[0] for word in rest if word.startswith("--")]
            assert set(given) <= set(options), f"{block}: {set(given) - set(options)}"
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert set(rest) <= set(targets), f"{block}: {rest}"
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.M)
        assert rest[0] == "install", block
        for extra in re.findall(r"\[(.*?)\]", " ".join(rest)):
            assert set(extra.split(",")) <= set(extras), f"{block}: {extra}"
    else:
        assert words[:2] == ["hf", "download"] or words == [".", ".venv/bin/activate"], f"{block}: what is {words}?"


def check_saven(words, block):
    # A number stands in for what the shell would fill in.
    words = [re.sub(r"\$[A-Z_]+", "1", word) for word in words]
    try:
        args = _parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"{block}: saven {' '.join(words)} does not parse")
    if args.verb == "train" and args.recipe not in (None, "tiny"):
        for recipe in stages(args.recipe):
            load_recipe(recipe, args.set, args.data)


def stages(recipe):
    return [recipe.replace("$stage", stage) for stage in ("align-visual", "align-audio", "temporal", "saven")]


# ------------------------------------------------------------------------------------------------------- docs/paper.md


def names_of_the_paper():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    return list(dict.fromkeys(re.findall(r"`([^`\n]+)`", text)))


@pytest.mark.parametrize("name", names_of_the_paper())
def test_the_paper_names_what_there_is(name):
    assert is_there(name), f"docs/paper.md: {name!r} is no file, object, command, recipe, key or check"


# What the paper reports: abstract, sections 1, 3.1, 5 and C, tables 1 to 4.
NUMBERS_OF_THE_PAPER = """
    58 k  21 k  37 k  2,500  3.61  1.29  1 minute  30 minutes to 1 hour  9,185
    26  160  48  1020  480  420  42  20  60  115  10  182
    512  2e-3  1 epoch  1024  2e-4  2 epochs  16 frames
    71.00  75.00  46.50  46.60  52.60  47.60  79.84  42.64  75.60  81.85  43.45  74.80  53.60  83.14  56.21
    77.29  75.71  34.04  32.26  58.49  66.71
    48.70  52.36  53.63  39.89  70.12  49.70  66.70
"""


@pytest.mark.parametrize("number", [one for one in re.split(r"\s{2,}", NUMBERS_OF_THE_PAPER.strip())])
def test_every_number_of_the_paper_has_a_row(number):
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8").partition("## What the paper leaves open")[0]
    assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d]|[.,]\d)", text), f"docs/paper.md has no {number}"


def is_there(name):
    if name.startswith("saven "):
        check_command(shlex.split(name), "docs/paper.md")
        return True
    if any((root / name).exists() for root in (ROOT, ROOT / "src" / "saven_hf")):
        return True
    if "=" in name:
        key, _, value = name.partition("=")
        return set_to(key, yaml.safe_load(value))
    return is_object(name) or name in keys() or name in CHECKS_OF_ROWS or name in shipped_recipes()


def set_to(key, value):
    """Whether a key of the model, of its frames or of a recipe takes a value."""
    if key in CONFIG:
        # The config itself does not look at the choices.
        choices = re.fullmatch(r"Literal(\[.*\])", str(SAVEnVideoConfig.__annotations__.get(key)))
        assert not choices or value in ast.literal_eval(choices[1]), f"{key}={value}"
        SAVEnVideoConfig(**{key: value})
    elif key in FRAMES:
        SAVEnVideoVideoProcessor(**{key: value})
    else:
        from_dict({"model": "m", "output_dir": "o", key: value})
    return True


def is_object(name):
    found, rest = saven_hf, name.split(".")
    if rest[0] == "saven_hf":
        return len(rest) == 1
    module = "saven_hf"
    while rest:
        if not hasattr(found, rest[0]):
            if not hasattr(found, "__path__") or importlib.util.find_spec(f"{module}.{rest[0]}") is None:
                return False
            importlib.import_module(f"{module}.{rest[0]}")
        found, module = getattr(found, rest[0]), f"{module}.{rest[0]}"
        rest = rest[1:]
        if not isinstance(found, types.ModuleType):
            return all(hasattr(found, one) for one in rest)
    return True


def keys():
    return CONFIG | FRAMES | {key for key, _, _ in explain()}


def test_names_that_are_not_there_are_noticed():
    for name in ("savenvideo.connector_avts.AVTSResample", "pipeline/segments.py", "7b/save", "lora.rank", "nothing"):
        assert not is_there(name), name
    for name in ("time_fusion='twice'", "use_audio=3", "no_such_key=1"):
        with pytest.raises(Exception, match="twice|use_audio|no_such_key"):
            is_there(name)
    with pytest.raises(pytest.fail.Exception):
        is_there("saven ask --no-such-option")


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_commands_in_the_readmes_text_parse():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [name for name in re.findall(r"`(saven [^`\n]+)`", text) if "VERB" not in name and "--help" not in name]
    assert found
    for name in found:
        check_command(shlex.split(name), "README.md")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120

"""Lays out the test mixins of the installed transformers version in a cache folder, so that our classes can run them.

The source distribution of transformers carries the top level of its `tests/` folder (the mixins), but neither the
sub-folders they import from nor the media they use. This script downloads the distribution, checks its sum, unpacks
`tests/` and adds what is missing:

* small stand-ins written here (no exporter suite, our own common config values, local media for the Hub's URLs);
* `tests/generation/test_utils.py` and the any-to-any pipeline test out of a git clone of transformers, when
  `TRANSFORMERS_CLONE` names one. Without it the generation mixin is an empty class.

Nothing of transformers is ever written inside the repository outside of the git-ignored cache.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]

# Sums of the source distributions, by version: a version that is not listed is refused.
SDIST_SHA256 = {"5.23.0": "19d647a4d5d903a7c644ca5cde2d86efc3dde7d8c687ae7988806ff2205efa71"}

# Files that only the git repository has. `any-to-any` is the one pipeline task our model serves.
GENERATION_SUITE = "tests/generation/test_utils.py"
CLONE_FILES = (GENERATION_SUITE, "tests/pipelines/test_pipelines_any_to_any.py")

PACKAGES = ("tests", "tests/generation", "tests/exporters", "tests/utils", "tests/pipelines", "utils")

STAND_INS = {
    GENERATION_SUITE: """
class GenerationTesterMixin:
    \"\"\"Empty: the real one is only in the git repository of transformers (see TRANSFORMERS_CLONE).\"\"\"
""",
    # Export to ONNX / ExecuTorch / torch.export is not a claim of this project.
    "tests/exporters/test_export.py": """
class ExportTesterMixin:
    \"\"\"Empty: exporters are not covered.\"\"\"


class ExportGenerateTesterMixin:
    \"\"\"Empty: exporters are not covered.\"\"\"
""",
    # Values of ours for the fields that every PreTrainedConfig takes; none of them is the default.
    "tests/utils/test_configuration_utils.py": """
config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 3,
    "architectures": ["SomeModel"],
    "id2label": {0: "speech", 1: "music"},
    "label2id": {"speech": 0, "music": 1},
    "problem_type": "multi_label_classification",
}
""",
    "tests/pipelines/test_pipelines_common.py": """
class ANY:
    \"\"\"Equal to every instance of the given types.\"\"\"

    def __init__(self, *types):
        self.types = types

    def __eq__(self, other):
        return isinstance(other, self.types)

    def __repr__(self):
        return " | ".join(kind.__name__ for kind in self.types)
""",
    # Used when there is no clone: the mixin then still builds the pipeline and runs it in uneven batches.
    "tests/pipelines/test_pipelines_any_to_any.py": """
from pathlib import Path

from transformers import AnyToAnyPipeline

MEDIA = Path(__file__).parents[2] / "media"


class AnyToAnyPipelineTests:
    def get_test_pipeline(self, model, tokenizer, processor, dtype="float32", **other_processors):
        video, audio = processor.video_token, processor.audio_token
        pipeline = AnyToAnyPipeline(model=model, processor=processor, dtype=dtype, max_new_tokens=5)
        examples = [
            {"videos": str(MEDIA / "video_with_sound.mp4"), "text": f"{video}This video shows a "},
            {"audio": str(MEDIA / "sound.wav"), "text": f"{audio}Here I hear a "},
        ]
        return pipeline, examples

    def run_pipeline_test(self, pipeline, examples):
        for example in examples:
            (answer,) = pipeline(example)
            assert isinstance(answer["generated_text"], str)
""",
    # The suites pass the Hub's URLs through this function; every one of them is answered with a file of ours.
    "utils/fetch_hub_objects_for_ci.py": """
from pathlib import Path

MEDIA = Path(__file__).parents[1] / "media"


def url_to_local_path(url, *args, **kwargs):
    name = url.rsplit("/", 1)[-1]
    suffix = Path(name).suffix
    if name == "tiny_video_320x240.mp4":
        local = MEDIA / name
    elif suffix == ".mp4":
        local = MEDIA / "video_with_sound.mp4"
    elif suffix in (".mp3", ".wav"):
        local = MEDIA / f"sound{suffix}"
    else:
        local = MEDIA / "picture.png"
    return str(local)
""",
    # test_pipeline_mixin re-executes this file to look classes up by name; the installed package must stay as it is.
    "src/transformers/__init__.py": "",
    "tests/utils/tiny_model_summary.json": "{}",
}

# Test pattern and sine tone, sized and timed as the suites expect (the tiny video has 11 frames at 30 frames/s).
_TONE = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=4"]
MEDIA_COMMANDS = {
    "tiny_video_320x240.mp4": ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=30", "-frames:v", "11"],
    "video_with_sound.mp4": ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=4", *_TONE, "-shortest"],
    "sound.wav": _TONE,
    "sound.mp3": _TONE,
    "picture.png": ["-f", "lavfi", "-i", "testsrc=size=320x240", "-frames:v", "1"],
}
# Paths that the any-to-any test opens relative to the working directory.
COCO_PICTURE = "tests/fixtures/tests_samples/COCO/000000039769.png"


def download_sdist(version: str, folder: Path) -> Path:
    """Path of the checked source distribution of transformers `version`, downloaded into `folder` if need be."""
    if version not in SDIST_SHA256:
        raise SystemExit(
            f"transformers {version} has no pinned source distribution (pinned: {', '.join(SDIST_SHA256)}). Install a"
            " pinned version, or add the new one's sha256 to SDIST_SHA256 and go through tests/peer/skips.toml."
        )
    archive = folder / f"transformers-{version}.tar.gz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-binary", "transformers"]
        command += ["--dest", str(folder), f"transformers=={version}"]
        if subprocess.run(command).returncode != 0:
            raise SystemExit(
                "pip could not download the source distribution of transformers: it needs the network. You can also"
                f" put it at {archive} by hand."
            )
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SDIST_SHA256[version]:
        raise SystemExit(f"{archive} has sha256 {found}, expected {SDIST_SHA256[version]}: delete it and try again.")
    return archive


def read_clone(clone: str, version: str) -> tuple[str, dict[str, str]]:
    """Description of the commit used and the texts of CLONE_FILES at tag v`version`, or else at HEAD, of `clone`."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", clone, *arguments], capture_output=True, text=True)

    reference = f"v{version}" if git("rev-parse", "--verify", f"v{version}^{{commit}}").returncode == 0 else "HEAD"
    commit = git("rev-parse", "--short=12", reference)
    if commit.returncode != 0:
        raise SystemExit(f"TRANSFORMERS_CLONE={clone} is not a git repository: {commit.stderr.strip()}")
    setup = git("show", f"{reference}:setup.py").stdout
    found = next((line.split('"')[1] for line in setup.splitlines() if line.strip().startswith('version="')), "?")
    texts = {}
    for path in CLONE_FILES:
        shown = git("show", f"{reference}:{path}")
        if shown.returncode != 0:
            raise SystemExit(f"TRANSFORMERS_CLONE={clone} has no {path} at {reference}: {shown.stderr.strip()}")
        texts[path] = shown.stdout
    return f"transformers {found}, commit {commit.stdout.strip()} ({reference})", texts


def make_media(folder: Path) -> None:
    """Renders the few local files that stand for the Hub's test media, with the ffmpeg command."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, arguments in MEDIA_COMMANDS.items():
        subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *arguments, folder / name], check=True)


def lay_out(cache: Path, clone: str | None = None) -> Path:
    """Lays the suites out in a folder of `cache`, or finds it complete there, and returns it.

    Its `origin.json` says what came from where. Every combination of versions has a folder of its own, so runs with
    and without a clone do not disturb each other.

    Args:
        cache: folder for the source distribution and the laid-out tests.
        clone: a git clone of transformers (work tree or bare), or None.
    """
    version = importlib.metadata.version("transformers")
    texts, origin = dict(STAND_INS), None
    if clone:
        origin, from_clone = read_clone(clone, version)
        texts.update(from_clone)
    script = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    record = {"transformers": version, "clone": origin, "script": script}
    root = cache / (f"{version}-with-clone" if clone else version)
    marker = root / "origin.json"
    if marker.exists() and json.loads(marker.read_text()) == record:
        return root

    archive = download_sdist(version, cache)
    shutil.rmtree(root, ignore_errors=True)
    with tarfile.open(archive) as tar:
        prefix = f"transformers-{version}/"
        for member in tar.getmembers():
            if member.name.startswith(f"{prefix}tests/") and member.isfile():
                member.name = member.name.removeprefix(prefix)
                tar.extract(member, root, filter="data")
    for package in PACKAGES:
        (root / package).mkdir(parents=True, exist_ok=True)
        (root / package / "__init__.py").touch()
    for path, text in texts.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.lstrip("\n"))
    make_media(root / "media")
    (root / COCO_PICTURE).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "media" / "picture.png", root / COCO_PICTURE)
    marker.write_text(json.dumps(record, indent=1))
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache" / "peer-tests")
    arguments = parser.parse_args()
    print(lay_out(arguments.cache, os.environ.get("TRANSFORMERS_CLONE")))

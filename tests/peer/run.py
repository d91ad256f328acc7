"""Runs transformers' own test suites against the classes of saven_hf: `make peer-tests` calls this file.

    python tests/peer/run.py                       both modes, checked against tests/peer/skips.toml
    python tests/peer/run.py --mode plain          without torchvision, as the library is installed
    python tests/peer/run.py --mode torchvision    with torchvision (and librosa) beside it
    python tests/peer/run.py --mode plain -- -k beats -x     anything after -- goes to pytest; no table check then

Environment: TRANSFORMERS_CLONE names a git clone of transformers, from which the generation suite and the any-to-any
pipeline test are taken (the source distribution lacks them).
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from fetch_transformers_tests import REPOSITORY, lay_out


HERE = Path(__file__).resolve().parent
MODES = ("plain", "torchvision")

TORCH_OF_TORCHVISION = "2.13"

# torchvision, and librosa with what it imports: several audio tests only run where it is installed.
EXTRA_PACKAGES = (
    "torchvision==0.28.0",
    "librosa==0.11.0",
    "audioread==3.1.0",
    "decorator==5.3.1",
    "joblib==1.6.0",
    "lazy_loader==0.6",
    "llvmlite==0.50.0",
    "msgpack==1.2.4",
    "numba==0.68.1",
    "pooch==1.9.0",
    "scikit-learn==1.9.1",
    "soxr==1.1.0",
    "threadpoolctl==3.8.0",
)


def install_extras(folder: Path) -> None:
    """Installs EXTRA_PACKAGES into `folder`, which only the torchvision mode puts on its path.

    Without dependencies: everything else they need is in the environment, which must not be shadowed.
    """
    torch = importlib.metadata.version("torch")
    if not torch.startswith(f"{TORCH_OF_TORCHVISION}."):
        raise SystemExit(
            f"torchvision 0.28 goes with torch {TORCH_OF_TORCHVISION}, but torch {torch} is installed: install"
            f" {TORCH_OF_TORCHVISION}, or change EXTRA_PACKAGES, or run `--mode plain`."
        )
    marker = folder / "installed.txt"
    wanted = "\n".join(EXTRA_PACKAGES)
    if marker.exists() and marker.read_text() == wanted:
        return
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--upgrade", "--target", str(folder)]
    subprocess.run([*command, *EXTRA_PACKAGES], check=True)
    marker.write_text(wanted)


def run(mode: str, root: Path, extras: Path, pytest_arguments: list[str]) -> int:
    """Runs pytest on this folder in one mode, in a process of its own, and returns its exit code."""
    environment = dict(os.environ)
    environment.update(
        SAVEN_PEER_ROOT=str(root),
        SAVEN_PEER_MODE=mode,
        SAVEN_PEER_CHECK="0" if pytest_arguments else "1",
        RUN_SLOW="1",  # "slow" is about model sizes: with ours these tests take seconds
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
    )
    paths = [str(REPOSITORY / "src"), environment.get("PYTHONPATH", "")]
    if mode == "torchvision":
        paths.insert(1, str(extras))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), "--rootdir", str(HERE), "-q"]
    # The suites open some of their files relative to the working directory.
    return subprocess.run([*command, *pytest_arguments, str(HERE)], env=environment, cwd=root).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache" / "peer-tests")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    root = lay_out(cache, os.environ.get("TRANSFORMERS_CLONE"))
    extras = cache / "site-torchvision"
    worst = 0
    for mode in MODES if arguments.mode == "both" else (arguments.mode,):
        if mode == "torchvision":
            install_extras(extras)
        print(f"\n=== transformers' test suites, mode {mode}", flush=True)
        worst = max(worst, run(mode, root, extras, arguments.pytest))
    return worst


if __name__ == "__main__":
    raise SystemExit(main())

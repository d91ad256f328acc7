"""The job array that goes to Slurm, with an `sbatch` that only writes down what it is given, and an `scontrol` that
knows hosts by their names."""

import os
import re
import stat
import subprocess
import sys

import pytest

from saven_hf.pipeline import PipelineError, build_dataset


pytest.importorskip("datatrove", reason="builds run on datatrove's executors: pip install saven-hf[pipeline]")

SBATCH = """#!/bin/sh
n=$(ls "$JOBS" | wc -l)
for word in "$@"; do script=$word; done
{ echo "# words: $@"; cat "$script"; } > "$JOBS/$n.sh"
echo "Submitted batch job 10$n"
"""
# scontrol show hostnames LIST
SCONTROL = """#!/bin/sh
[ "$1 $2" = "show hostnames" ] && echo "$3"
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("scontrol", SCONTROL)):
        command = tmp_path / "bin" / name
        command.write_text(script)
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(folder))
    return folder


def submit(world_folder, out):
    slurm = {"partition": "cpu", "time": "01:00:00"}
    return build_dataset([world_folder], out, executor="slurm", tasks=3, workers=2, slurm=slurm, progress=False)


def test_an_array_of_tasks_and_a_job_that_waits_for_it(world_folder, tmp_path, jobs):
    result = submit(world_folder, tmp_path / "out")
    scripts = [path.read_text() for path in sorted(jobs.iterdir())]
    shares = next(text for text in scripts if "--array=0-2%2" in text)
    assert "--partition=cpu" in shares and "--time=01:00:00" in shares
    finish = next(text for text in scripts if "saven-finish" in text and "launch_pickled_pipeline" in text)
    assert re.search(r"--dependency=\S*afterok:10\d", finish.splitlines()[0])
    assert result["job"] in ("101", "102") and result["videos"] == 6


@pytest.mark.slow
def test_what_the_jobs_run_is_the_same_build(world_folder, tmp_path, jobs):
    submit(world_folder, tmp_path / "out")
    environment = os.environ | {"SLURM_NODELIST": "localhost", "RUN_OFFSET": "0"}
    for name, count in (("slurm", 3), ("slurm-finish", 1)):
        pickled = tmp_path / "out" / "work" / "logs" / name / "executor.pik"
        for task in range(count):
            subprocess.run(
                [sys.executable, "-m", "datatrove.tools.launch_pickled_pipeline", str(pickled)],
                env=environment | {"SLURM_ARRAY_TASK_ID": str(task)},
                check=True,
            )
    build_dataset([world_folder], tmp_path / "local", progress=False)
    for name in ("README.md", "report.html", "fingerprints.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_no_slurm_here(world_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="no `sbatch`"):
        submit(world_folder, tmp_path / "out")

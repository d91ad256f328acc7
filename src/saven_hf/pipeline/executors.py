"""Where the stages run: datatrove's executors, each task a share of the videos."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from .errors import PipelineError
from .stages import Settings, VideoTask, Work, Worker


EXECUTORS = ("local", "slurm", "ray")
_PLAN = "plan.json"


def write_plan(work: Work, settings: Settings, tasks: list[VideoTask]) -> None:
    """Write down what tasks have to do; they may run on other machines."""
    from ..files import written_whole

    plan = {"settings": asdict(settings), "videos": [asdict(task) for task in tasks]}
    with written_whole(work.folder / _PLAN) as partial:
        Path(partial).write_text(json.dumps(plan, indent=1), encoding="utf-8")


def read_plan(work: Work) -> tuple[Settings, list[VideoTask]]:
    """What `write_plan` wrote."""
    plan = json.loads((work.folder / _PLAN).read_text(encoding="utf-8"))
    return Settings(**plan["settings"]), [VideoTask(**one) for one in plan["videos"]]


class Share:
    """A step of a datatrove pipeline: every `world_size`-th video, from the `rank`-th on, through all stages."""

    def __init__(self, folder: str | os.PathLike, quiet: bool = False):
        self.folder, self.quiet = os.fspath(folder), quiet

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.quiet:  # in a process of datatrove's, before it says anything
            _quiet()

    def __call__(self, data, rank: int = 0, world_size: int = 1) -> Iterator[str]:
        work = Work(self.folder)
        settings, tasks = read_plan(work)
        worker = Worker(settings, work, rank)
        try:
            yield from worker.run(tasks[rank::world_size])
        finally:
            worker.log_usage()
            worker.annotator.close()


class Finish:
    """The last step on a cluster: write the dataset once all tasks are done."""

    def __init__(self, out: str | os.PathLike, options: dict):
        self.out, self.options = os.fspath(out), options

    def __call__(self, data, rank: int = 0, world_size: int = 1) -> None:
        from .build import assemble

        assemble(self.out, **self.options)


def run_tasks(
    executor: str,
    out: str | os.PathLike,
    tasks: int,
    workers: int,
    options: dict | None = None,
    slurm: dict | None = None,
) -> str | None:
    """Run `tasks` shares of the plan in `out`/work.

    Args:
        executor: "local" (processes of this machine), "ray" (a cluster that `ray` finds, or this machine) or "slurm"
            (a job array, and a job that writes the dataset when it is done).
        workers: how many tasks at a time.
        options: of `assemble`, for slurm.
        slurm: arguments of datatrove's `SlurmPipelineExecutor`, such as {"partition": "cpu", "time": "24:00:00"}.

    Returns:
        None when all is done; for slurm, the number of the last job, which writes the dataset.

    Raises:
        PipelineError: no such executor, or it is not installed.
        ServiceError: as `Worker.run`.
    """
    if executor not in EXECUTORS:
        raise PipelineError(f"There is no executor {executor!r}: choose one of {', '.join(EXECUTORS)}.")
    folder = Path(out) / "work"
    logs = os.path.abspath(folder / "logs")
    share = [Share(os.path.abspath(folder), quiet=executor != "slurm")]
    # Not datatrove's own markers of completed tasks: stages know better what is done, and a file may have changed.
    common = {"tasks": tasks, "workers": workers, "skip_completed": False}
    try:
        if executor == "local":
            from datatrove.executor.local import LocalPipelineExecutor

            _quiet()
            LocalPipelineExecutor(share, logging_dir=logs, **common).run()
        elif executor == "ray":
            from datatrove.executor.ray import RayPipelineExecutor

            _quiet()
            _start_ray()
            RayPipelineExecutor(share, logging_dir=logs, **common).run()
        else:
            return _submit(share, out, options or {}, slurm or {}, logs, common)
    except ImportError as error:
        raise PipelineError(f"{error}. Install what the pipeline needs: pip install 'saven-hf[pipeline]'.") from error
    return None


def _start_ray() -> None:
    """Connect to the cluster that ray finds, or start one on this machine."""
    try:
        import ray
    except ImportError as error:
        raise PipelineError("--executor ray needs the ray package: pip install 'saven-hf[ray]'.") from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)


def _quiet() -> None:
    """Datatrove's log does not go to the terminal, where progress is shown."""
    from loguru import logger

    logger.disable("datatrove")


def _submit(share: list, out, options: dict, slurm: dict, logs: str, common: dict) -> str:
    from datatrove.executor.slurm import SlurmPipelineExecutor

    if not slurm.get("partition"):
        raise PipelineError(
            "Slurm needs a partition: add --slurm partition=NAME, and time=HH:MM:SS where a day is too short."
        )
    slurm = {"time": "24:00:00", "requeue": True, **slurm}
    shares = SlurmPipelineExecutor(share, job_name="saven-build", logging_dir=f"{logs}/slurm", **slurm, **common)
    finish = SlurmPipelineExecutor(
        [Finish(os.path.abspath(out), options)],
        job_name="saven-finish",
        logging_dir=f"{logs}/slurm-finish",
        depends=shares,
        **slurm,
        **(common | {"tasks": 1, "workers": 1}),
    )
    try:
        finish.run()
    except FileNotFoundError as error:
        raise PipelineError("There is no `sbatch` here: run this where Slurm is, or take --executor local.") from error
    return finish.job_id

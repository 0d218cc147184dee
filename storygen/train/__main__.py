"""python -m storygen.train RECIPE: prepare, train, measure and write a model directory."""

import argparse
import ast
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from storygen.errors import StorygenError, TrainError
from storygen.train.config import load_recipe, recipe_names
from storygen.train.data import load_corpus
from storygen.train.distributed import Group, join
from storygen.train.finish import finish
from storygen.train.metrics import METRICS
from storygen.train.start import in_context
from storygen.train.trainer import Progress, Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Run a training; 0 when done, 1 with a sentence on standard error."""
    args = _parser().parse_args(argv)
    try:
        _train(args)
    except StorygenError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Go on from the last checkpoint with --resume.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m storygen.train", description=__doc__)
    parser.add_argument("recipe", help=f"one of {', '.join(recipe_names())}, or a .toml file")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="default: data/RECIPE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/RECIPE")
    parser.add_argument("--init", metavar="DIR", help="begin with the model in DIR")
    parser.add_argument("--minutes", type=float, metavar="N", help="stop after N minutes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="key=value",
        help="change a value of the recipe, such as learning_rate=1e-3",
    )
    return parser


def _train(args: argparse.Namespace) -> None:
    changes = dict(_change(text) for text in args.changes)
    if args.init is not None:
        changes["init"] = args.init
    config = in_context(load_recipe(args.recipe, changes))
    name = Path(args.recipe).stem if args.recipe.endswith(".toml") else args.recipe
    run = args.out or Path("runs") / name
    corpus = load_corpus(args.corpus or Path("data") / name, config.window_size)
    group = join()
    try:
        if not args.resume:
            group.from_first(lambda: _check_new(run))
        with _bar(group) as bar:
            task = bar.add_task(name, total=None, speed=0.0, loss=0.0, val="")
            trouble = _every(config.checkpoint_minutes, bar)
            trainer = Trainer(config, corpus, run, group, lambda p: _show(bar, task, p), trouble)
            bar.update(task, total=trainer.config.max_steps)
            if args.resume and trainer.resume():
                bar.update(task, completed=trainer.step)
                for damaged in trainer.damaged:
                    bar.console.print(f"{run / damaged} is damaged; went on from the one before.")
            with _stopped_by_signals(trainer), group.together():
                done = trainer.run(args.minutes)
        if group.first and trainer.step and (done or not trainer.is_stopped):
            print(f"{_finished(trainer, name)} is ready. To write with it, copy it into weights/.")
        if group.first and not done:
            print(f"Stopped at step {trainer.step:,}. Go on with --resume.")
    finally:
        group.leave()


def _check_new(run: Path) -> None:
    """Raise TrainError where a run lies there, or where nobody can tell."""
    try:
        is_taken = (run / METRICS).exists()
    except OSError as error:
        raise TrainError(f"{run} cannot be read ({error}). Choose another --out.") from None
    if is_taken:
        raise TrainError(f"{run} holds an earlier run: add --resume, or choose another --out.")


def _finished(trainer: Trainer, name: str) -> Path:
    """finish(), with what the disk does not take as a sentence."""
    try:
        return finish(trainer, name)
    except OSError as error:
        raise TrainError(
            f"{trainer.run_dir / 'model'} could not be written ({error}). The last checkpoint is "
            "kept: make room, then finish with --resume."
        ) from None


def _every(minutes: float, bar: Bar) -> Callable[[str], None]:
    """Tells what did not end the run, above the bar."""
    again = f"Training goes on, and tries again in {minutes:g} minutes."
    return lambda sentence: bar.console.print(f"{sentence} {again}", highlight=False)


@contextmanager
def _stopped_by_signals(trainer: Trainer) -> Iterator[None]:
    """Let the first SIGTERM or Ctrl-C end the run with a checkpoint, and a second one at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        trainer.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _change(text: str) -> tuple[str, Any]:
    """key=value as a name and a Python literal, or the text itself where it is none."""
    key, equals, value = text.partition("=")
    if not equals:
        raise TrainError(f"--set {text!r} has no '=': write --set learning_rate=1e-3.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _bar(group: Group) -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:,.0f} tokens/s  loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[val]}"),
        TimeRemainingColumn(),
        disable=not group.first,
    )


def _show(bar: Bar, task: Any, progress: Progress) -> None:
    bar.update(task, completed=progress.step, speed=progress.tokens_per_second, loss=progress.loss)
    if progress.val_loss is not None:
        bar.update(task, val=f"validation {progress.val_loss:.3f}")


if __name__ == "__main__":
    sys.exit(main())

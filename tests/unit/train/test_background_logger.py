"""A logger that fails, is slow, or hangs neither ends nor delays the training."""

import threading
import time

import pytest

from core.errors import BadInput
from core.options import Parser, add_config_options, load_config
from train.checkpoints.manifest import differences
from train.monitoring.loggers import background_logger
from train.monitoring.loggers.background_logger import BackgroundLogger
from train.monitoring.loggers.registry import check_loggers
from train.monitoring.run_log import RunLog
from train.recipes.zero123plus_config import Zero123PlusTrainConfig


class Recorder:
    """A logger that records its calls, and fails or waits at a step."""

    def __init__(self, *, fails_at: int = 0, waits_at: int = 0) -> None:
        self.calls: list = []
        self.go_on = threading.Event()
        self._fails_at, self._waits_at = fails_at, waits_at

    def scalars(self, step, values) -> None:
        if step == self._fails_at:
            raise RuntimeError("the server is gone\nTraceback")
        if step == self._waits_at:
            self.go_on.wait(30)
        self.calls.append((step, values))

    def picture(self, step, name, picture) -> None:
        self.calls.append((step, name))

    def close(self, *, failed) -> None:
        self.calls.append(failed)


def log_steps(recorder: Recorder, steps: int = 4) -> BackgroundLogger:
    logger = BackgroundLogger("curves", lambda: recorder)
    for step in range(1, steps + 1):
        logger.scalars(step, {"train/loss": 0.5})
    return logger


def test_all_calls_arrive_in_order_before_the_end():
    recorder = Recorder()
    logger = log_steps(recorder, 2)
    logger.picture(2, "preview", None)
    logger.close(failed=True)
    values = {"train/loss": 0.5}
    assert recorder.calls == [(1, values), (2, values), (2, "preview"), True]


def test_the_first_error_is_one_warning_and_the_end_of_the_logger(caplog):
    recorder = Recorder(fails_at=2)
    log_steps(recorder).close(failed=False)
    assert [call[0] for call in recorder.calls] == [1]
    assert caplog.text.count("logger curves") == 1
    assert "the training continues: the server is gone" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_logger_that_cannot_be_opened_is_a_warning(caplog):
    def fail():
        raise OSError("no account")

    logger = BackgroundLogger("curves", fail)
    logger.scalars(1, {})
    logger.close(failed=False)
    assert "the training continues: no account" in caplog.text


def test_a_slow_logger_loses_values_and_a_hanging_one_is_left(caplog, monkeypatch):
    monkeypatch.setattr(background_logger, "_MAX_WAITING", 3)
    monkeypatch.setattr(background_logger, "_CLOSE_SECONDS", 0.2)
    recorder = Recorder(waits_at=1)
    started = time.monotonic()
    logger = log_steps(recorder, 50)
    logger.close(failed=False)
    assert time.monotonic() - started < 5
    assert caplog.text.count("too slow") == 1
    assert "does not respond" in caplog.text
    recorder.go_on.set()


def test_an_interrupt_does_not_wait_for_a_logger(tmp_path):
    recorder = Recorder(waits_at=1)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), RunLog(tmp_path, 0, [log_steps(recorder)]):
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5
    recorder.go_on.set()


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["tensorbord"], "'tensorbord' does not exist; did you mean 'tensorboard'"),
        (["wandb"], "the package wandb is not installed: pip install wandb"),
        (["mlflow"], "the package mlflow is not installed: pip install mlflow"),
    ],
)
def test_an_unknown_logger_or_a_missing_package_is_refused(names, parts, monkeypatch):
    check_loggers(["tensorboard"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=parts):
        check_loggers(names)


@pytest.mark.parametrize(
    ("words", "loggers"),
    [
        ("", ("tensorboard",)),
        ("--no-tensorboard", ()),
        ("--tensorboard false", ()),
        ("--tensorboard", ("tensorboard",)),
        ("--tensorboard false --loggers [tensorboard,mlflow]", ("mlflow",)),
        ("--loggers []", ()),
    ],
)
def test_the_option_before_the_loggers_still_works(words, loggers, capsys):
    parser = Parser(prog="train")
    add_config_options(parser, Zero123PlusTrainConfig)
    required = {"root": "r", "snapshot": "s", "out": "o"}
    config = load_config(Zero123PlusTrainConfig, parser.parse_args(words.split()), required)
    assert config.loggers == loggers
    assert ("--loggers" in capsys.readouterr().err) == ("tensorboard" in words.split("[")[0])
    stored = config.dump() | {"tensorboard": bool(loggers)}
    del stored["loggers"]
    old = Zero123PlusTrainConfig.load(stored)
    assert old.loggers == (("tensorboard",) if loggers else ())
    assert differences(stored, config.dump(), renamed=config.renamed) == []

"""Requests to end a run: who asked, what for, and whether it survives a race."""

import os
import signal

from train.resilience.stop_file import StopFile
from train.resilience.stopping import StopRequest, signal_handler


def test_a_file_of_a_person_is_a_request_to_stop(tmp_path):
    file = StopFile(tmp_path)
    assert not file.is_requested()
    (tmp_path / "stop").touch()
    assert file.is_requested()
    file.request_restart()
    assert not file.is_for_restart()
    file.remove()
    assert not file.is_requested()


def test_a_restart_ends_the_workers_and_only_the_driver_knows_why(tmp_path):
    driver, worker = StopFile(tmp_path), StopFile(tmp_path)
    driver.request_restart()
    assert driver.is_for_restart()
    assert worker.is_requested()
    assert not worker.is_for_restart()
    driver.remove()
    assert not driver.is_for_restart()
    assert not worker.is_requested()


def test_a_stop_wins_over_a_restart_in_either_order(tmp_path):
    file = StopFile(tmp_path / "new")
    file.request_stop()
    file.request_restart()
    assert not file.is_for_restart()
    later = StopFile(tmp_path)
    later.request_restart()
    later.request_stop()
    assert not later.is_for_restart()
    # A signal between the driver's decision to restart and the removal of the file.
    later.remove()
    assert later.is_requested()


def test_a_signal_requests_and_the_handlers_before_come_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest(tmp_path)
    with signal_handler(request.set):
        assert not request
        # Otherwise the signal would end the process of the tests.
        assert signal.getsignal(signal.SIGTERM) is not before
        os.kill(os.getpid(), signal.SIGTERM)
        assert request
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before

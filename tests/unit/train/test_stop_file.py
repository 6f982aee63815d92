"""Stop requests: by a user or for a restart, by file or signal, and their races."""

import os
import signal

from train.resilience.stop_file import StopFile
from train.resilience.stopping import StopRequest, signal_handler


def test_a_file_that_a_user_creates_is_a_stop_request(tmp_path):
    file = StopFile(tmp_path)
    assert not file.is_requested()
    (tmp_path / "stop").touch()
    assert file.is_requested()
    file.request_restart()
    assert not file.is_for_restart()
    file.remove()
    assert not file.is_requested()


def test_a_restart_ends_the_workers_and_only_the_driver_knows_its_reason(tmp_path):
    driver, worker = StopFile(tmp_path), StopFile(tmp_path)
    driver.request_restart()
    assert driver.is_for_restart()
    assert worker.is_requested()
    assert not worker.is_for_restart()
    driver.remove()
    assert not driver.is_for_restart()
    assert not worker.is_requested()


def test_a_stop_request_overrides_a_restart_in_either_order(tmp_path):
    file = StopFile(tmp_path / "new")
    file.request_stop()
    file.request_restart()
    assert not file.is_for_restart()
    reversed_order = StopFile(tmp_path)
    reversed_order.request_restart()
    reversed_order.request_stop()
    assert not reversed_order.is_for_restart()
    # A signal between the driver's decision to restart and the removal of the file.
    reversed_order.remove()
    assert reversed_order.is_requested()


def test_a_signal_is_a_stop_request_and_the_previous_handlers_are_restored(tmp_path):
    previous = signal.getsignal(signal.SIGTERM)
    request = StopRequest(tmp_path)
    with signal_handler(request.set):
        assert not request
        # Otherwise the signal would end the process of the tests.
        assert signal.getsignal(signal.SIGTERM) is not previous
        os.kill(os.getpid(), signal.SIGTERM)
        assert request
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is previous

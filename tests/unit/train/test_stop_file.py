"""Stop requests: by a user or for a restart, by file, and their races."""

from train.resilience.stop_file import StopFile


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

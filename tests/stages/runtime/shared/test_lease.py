"""Leases: one holder at a time, signs of life, and who takes over."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.runtime.shared import lease as lease_module
from stages.runtime.shared.lease import Lease, leased
from stages.runtime.shared.remote import FolderRemote

LEASE_S = 0.6


def never() -> bool:
    return False


@pytest.fixture
def place(tmp_path: Path) -> FolderRemote:
    return FolderRemote(tmp_path / "place")


def held(place: FolderRemote, needless: Callable[[], bool] = never, give_up: Callable[[], bool] = never):
    return leased(place, "nerf-1", lease_s=LEASE_S, needless=needless, give_up=give_up)


def test_holders_take_turns_and_leave_nothing(place: FolderRemote) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with held(place):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5
    assert place.names("leases/nerf-1") == []


def test_a_living_holder_is_waited_for_beyond_the_lease_and_a_dead_one_is_not(
    place: FolderRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(place) as first:
        assert first is not None
        asked = 0

        def after_a_while() -> bool:
            nonlocal asked
            asked += 1
            return asked > 3 * LEASE_S / (LEASE_S / 3)

        with pytest.raises(BlockingIOError, match="is held by .*process"), held(place, give_up=after_a_while):
            pass
        first._over.set()  # its signs of life end, as after SIGKILL
        first._thread.join()
        started = time.monotonic()
        with held(place) as second:
            assert second is not None
            assert time.monotonic() - started >= LEASE_S
            assert place.names("leases/nerf-1") == ["000001", "000002"]
    assert place.names("leases/nerf-1") == []


def test_a_holder_that_slept_sees_that_it_lost(place: FolderRemote) -> None:
    with held(place) as sleeper:
        assert sleeper is not None
        place.create("leases/nerf-1/000002", b"another's")
        time.sleep(LEASE_S)
        assert sleeper.lost
    assert place.names("leases/nerf-1") == ["000002"], "another's lease stays"


def test_waiting_ends_when_the_result_is_there(place: FolderRemote) -> None:
    done = threading.Event()
    with held(place):
        timer = threading.Timer(0.3, done.set)
        timer.start()
        with held(place, needless=done.is_set) as lease:
            assert lease is None


def test_a_store_that_was_away_makes_nobody_dead(place: FolderRemote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "POLL_S", 0.05)
    away = threading.Lock()
    whole_names, whole_write = FolderRemote.names, FolderRemote.write

    def waiting_names(self: FolderRemote, folder: str) -> list[str]:
        with away:
            return whole_names(self, folder)

    def waiting_write(self: FolderRemote, name: str, payload: bytes) -> None:
        with away:
            whole_write(self, name, payload)

    with held(place) as first:
        assert first is not None
        looks = 0

        def a_few_looks() -> bool:
            nonlocal looks
            looks += 1
            return looks > 4

        monkeypatch.setattr(FolderRemote, "names", waiting_names)
        monkeypatch.setattr(FolderRemote, "write", waiting_write)
        waiter_gave_up = threading.Event()

        def wait() -> None:
            with pytest.raises(BlockingIOError), held(place, give_up=a_few_looks):
                pass
            waiter_gave_up.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.1)
        with away:
            time.sleep(2 * LEASE_S)
        waiter.join()
        assert waiter_gave_up.is_set(), "it took a living holder's lease"
        assert not first.lost


def test_one_of_many_takes_a_dead_holder_s_lease(place: FolderRemote) -> None:
    place.create("leases/nerf-1/000001", b"dead")
    holders: list[Lease] = []
    most: list[int] = []

    def work() -> None:
        with held(place) as lease:
            assert lease is not None
            holders.append(lease)
            most.append(len(holders))
            time.sleep(0.1)
            holders.remove(lease)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4

"""Signals that ask for an end are heard once, and not while it is written down."""

import os
import signal
import time
import weakref

import pytest

from rrl.machine import signals
from rrl.machine.signals import ENDING, Stopped, Stopping


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _handlers():
    """Handlers as a program has them, whoever started the tests, and nothing left behind."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    yield
    assert all(signal.getsignal(number) is signal.default_int_handler for number in ENDING)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "name"), [(15, "SIGTERM"), (2, "Ctrl-C"), (1, "SIGHUP")])
def test_a_signal_is_raised_once_while_listened_to(number, name):
    with Stopping() as stopping:
        stopping.listen()
        with pytest.raises(Stopped) as caught:
            send(number)
        for again in ENDING:
            send(again)  # the closing goes on
        stopping.hold()
        send(number)
    assert (caught.value.name, caught.value.code) == (name, 128 + number)


def test_what_comes_before_is_raised_when_listening_begins():
    with Stopping() as stopping:
        send(signal.SIGTERM)
        with pytest.raises(Stopped):
            stopping.listen()


def test_a_later_request_is_heard_again(monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", 0.0)
    with Stopping() as stopping:
        stopping.listen()
        for _ in range(2):
            with pytest.raises(Stopped):
                send(signal.SIGINT)


def test_a_first_ctrl_c_waits_where_that_is_worth_it(monkeypatch):
    monkeypatch.setattr(signals, "SAME_PRESS", 0.0)
    with Stopping() as stopping:
        stopping.listen()
        stopping.pause()  # nobody asked
        asked = []
        stopping.waiting = lambda: asked.append(1) is None
        send(signal.SIGINT)
        with pytest.raises(Stopped) as caught:
            stopping.pause()
        assert (caught.value.name, caught.value.code, asked) == ("Ctrl-C", 130, [1])


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_the_waiting(second, monkeypatch):
    monkeypatch.setattr(signals, "SAME_PRESS", 0.0)
    with Stopping() as stopping:
        stopping.listen()
        stopping.waiting = lambda: True
        send(signal.SIGINT)
        with pytest.raises(Stopped) as caught:
            send(second)
    assert caught.value.code == 128 + second


def test_one_press_that_arrives_twice_is_one(monkeypatch):
    """From the terminal, and once more from what started this process."""
    monkeypatch.setattr(signals, "SAME_PRESS", 60.0)
    with Stopping() as stopping:
        stopping.listen()
        stopping.waiting = lambda: True
        send(signal.SIGINT)
        send(signal.SIGINT)
        with pytest.raises(Stopped):
            stopping.pause()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_waiting_is_worth_nothing_and_for_sigterm_it_ends_at_once(number):
    with Stopping() as stopping:
        stopping.listen()
        stopping.waiting = lambda: number != signal.SIGINT
        with pytest.raises(Stopped):
            send(number)


def test_what_a_signal_became_on_its_way_is_the_signal_again():
    """As in ctypes, which makes another error of what is raised while it converts arguments."""
    with Stopping() as stopping, pytest.raises(Stopped) as caught, stopping.translated():
        stopping.listen()
        try:
            send(signal.SIGTERM)
        except Stopped as error:
            raise ValueError("argument 1: Stopped: 15") from error
    assert caught.value.code == 143
    with Stopping() as stopping, pytest.raises(ValueError, match="own"), stopping.translated():
        stopping.listen()
        raise ValueError("own")


def test_a_signal_that_comes_while_something_is_deleted_is_not_lost():
    """Python prints what is raised in `__del__`, and goes on."""

    class Closing:
        def __del__(self):
            send(signal.SIGTERM)

    with Stopping() as stopping:
        stopping.listen()
        with pytest.raises(Stopped):
            Closing()  # deleted at once
            for _ in range(200):
                time.sleep(0.01)
        stopping.hold()


def test_a_signal_that_python_drops_is_not_lost(capfd):
    """As in what a dying tensor's weak reference calls, or a ctypes callback."""

    class Tensor:
        pass

    asked = []
    with Stopping() as stopping:
        stopping.waiting = lambda: bool(asked.append(1))
        stopping.listen()
        tensor = Tensor()
        reference = weakref.ref(tensor, lambda _: send(signal.SIGINT))
        with pytest.raises(Stopped):
            del tensor  # its callback's exception is dropped
            for _ in range(200):
                time.sleep(0.01)
        stopping.hold()
    assert reference() is None
    assert asked == [1]  # and told once
    assert "ignored" not in capfd.readouterr().err


def test_ignored_hangups_stay_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Stopping() as stopping:
        stopping.listen()
        send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.default_int_handler)

import os
import signal

import pytest

from embedtrain.training.callbacks.stopping import SIGNALS, Stopped, StopRequest


def test_between_steps_a_signal_ends_the_run_at_once():
    for number in SIGNALS:
        with pytest.raises(Stopped) as stopped, StopRequest():
            os.kill(os.getpid(), number)
        assert stopped.value.by == number
        assert stopped.value.saved is None


def test_during_steps_a_signal_is_noted():
    with StopRequest() as stop:
        stop.defer = True
        assert stop.agreed(None) is None
        stop.obey()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # clusters say it twice
        assert stop.agreed(None) == signal.SIGTERM
        with pytest.raises(Stopped):
            stop.obey()


def test_a_second_ctrl_c_does_not_wait():
    with StopRequest() as stop:
        stop.defer = True
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back_and_taken_again():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with StopRequest() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library may
        stop.listen()
        stop.defer = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed(None) == signal.SIGTERM
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    stop.listen()  # outside the context nobody listens
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_nothing_that_catches_errors_catches_it():
    assert not issubclass(Stopped, Exception)

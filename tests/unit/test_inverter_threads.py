"""Several threads on one inverter: Inspect runs tasks at once, and all of them score with the same object."""

import copy
import pickle
import sys
import threading
import time
from dataclasses import dataclass

import anyio
import pytest

from lm_eval_inversion.adapters.inspect.batching import MicroBatcher
from lm_eval_inversion.inverter import shared
from lm_eval_inversion.inverter.base import Inverter

PROMPTS = ["You are a careful baker.", "Never talk about prices!"]


@pytest.fixture
def quick_switches():
    """Threads take turns all the time, as they do somewhere in a long run."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_batches_of_two_tasks_on_one_inverter(tiny_inverter, quick_switches, backend):
    sets = [[f"I bake bread number {number}.", "I wake at four."] for number in range(4)]

    def run(items):
        found = []
        for inverter, lines in items:
            found += [(inverter.invert([lines], 12), inverter.nll([lines] * 2, PROMPTS), inverter.sample([lines], 1, 0.9, 3, 6))]
        return found

    # Two kinds of secret share the model, so that one must wait for the other too.
    work = [(inverter, lines) for inverter in (tiny_inverter, tiny_inverter.of("user")) for lines in sets]
    alone = run(work)

    async def both():
        batchers, found = [MicroBatcher(run, size=1, window=0) for _ in range(4)], {}

        async def one(place):
            found[place] = await batchers[place % len(batchers)].submit(work[place % len(work)])

        async with anyio.create_task_group() as group:
            for place in range(3 * len(work)):
                group.start_soon(one, place)
        return [found[place] for place in range(3 * len(work))]

    for (texts, nats, samples), (own_texts, own_nats, own_samples) in zip(anyio.run(both, backend=backend), alone * 3):
        assert (texts, samples) == (own_texts, own_samples)
        assert nats == pytest.approx(own_nats, rel=1e-5)
    assert tiny_inverter.model.config._attn_implementation == "sdpa"


class Busy(Inverter):
    """An inverter that somebody else wrote, without a thought of threads; it notes how many are at work in it."""

    name, hash = "busy", "0"

    def __init__(self, secret="system", counts=None):
        self.secret = secret
        self.counts = {"now": 0, "most": 0} if counts is None else counts

    def _work(self):
        self.counts["now"] += 1
        self.counts["most"] = max(self.counts["most"], self.counts["now"])
        time.sleep(0.01)
        self.counts["now"] -= 1

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        self._work()
        return [""] * len(outputs)

    def token_nll(self, outputs, prompts):
        self._work()
        return [[1.0, 2.0]] * len(prompts)

    def sample(self, outputs, number, temperature, seed, max_new_tokens=256):
        self._work()
        return [[""] * (number + 1)] * len(outputs)

    def of(self, secret):
        return self if secret == self.secret else self.beside(Busy(secret, self.counts))


class Busier(Busy):
    def nll(self, outputs, prompts):
        self._work()
        return [sum(nats) for nats in self.token_nll(outputs, prompts)]


@pytest.mark.parametrize("kind", [Busy, Busier])
def test_everything_that_an_inverter_does_waits_for_its_turn(kind):
    inverter, failed = kind(), []
    work = [
        lambda: inverter.invert([["x"]]), lambda: inverter.nll([["x"]], ["y"]), lambda: inverter.token_nll([["x"]], ["y"]),
        lambda: inverter.sample([["x"]], 1, 1.0, 0), lambda: inverter.of("user").invert([["x"]]),
    ]  # fmt: skip

    def noting(step):
        try:
            step()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=noting, args=(step,), daemon=True) for step in work * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)  # a call within a call does not wait for itself
    assert inverter.counts == {"now": 0, "most": 1}


def test_who_holds_the_lock_has_the_inverter_alone():
    inverter, done = Busy(), threading.Event()
    with inverter.lock:
        thread = threading.Thread(target=lambda: (inverter.invert([["x"]]), done.set()), daemon=True)
        thread.start()
        assert inverter.invert([["x"]]) == [""]
        assert not done.wait(0.05)
    thread.join(30)
    assert done.is_set()


def test_inverters_of_their_own_do_not_wait_for_each_other():
    first, second = Busy(), Busy()
    assert first.lock is not second.lock
    assert first.of("user").lock is first.lock


def test_two_threads_load_an_inverter_once(monkeypatch):
    loaded = []

    def load(name, **_):
        time.sleep(0.05)
        loaded.append(Busy())
        return loaded[-1]

    monkeypatch.setattr(shared, "load_inverter", load)
    found = []
    threads = [
        threading.Thread(target=lambda secret=secret: found.append(shared.shared_inverter("made up", "cpu", "auto", secret)))
        for secret in ("system", "user", "system")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert len(found) == 3
    assert len({inverter.lock for inverter in found}) == 1


def test_a_copy_waits_for_itself_alone():
    inverter = Busy()
    with inverter.lock:
        assert copy.deepcopy(inverter).lock is not inverter.lock
    assert pickle.loads(pickle.dumps(inverter)).lock is not inverter.lock


def test_an_inverter_may_be_a_frozen_dataclass_and_takes_no_arguments_that_it_does_not_name():
    @dataclass(frozen=True)
    class Frozen(Busy):
        size: int = 1

    with Frozen(2).lock:
        assert Frozen(2).size == 2
    with pytest.raises(TypeError):
        Busy("/folder", device="cuda")

"""Threads that are given whole pieces of work, and trainings that are the same for any number of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from learnable import blobs
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.events import Epoch
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.search.search import Search
from napari_autosegnet.search.supernet import Supernet
from napari_autosegnet.settings import (
    ControllerSettings,
    NetworkSettings,
    OptimizationSettings,
    SearchSettings,
    SelectionSettings,
    TrainSettings,
)
from napari_autosegnet.training.calibration import calibrate
from napari_autosegnet.training.losses import make_loss
from napari_autosegnet.training.threads import WorkerThreads, finished, single_threaded
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.validation import score_network
from remembered_events import Events

CPU = torch.device("cpu")
COUNTS = (1, 2, 5)
NETWORK = NetworkSettings(base_width=8, max_width=16, stem_stride=2)
UseThreads = Callable[[int], None]


def network() -> nn.Module:
    torch.manual_seed(0)
    specification = NetworkSpecification.for_patches(
        64, NETWORK, in_channels=1, classes=2, architecture=SearchSpace().plain
    )
    return specification.build()


def test_each_thread_computes_alone_and_the_calling_one_keeps_its_number(use_threads: UseThreads) -> None:
    use_threads(3)
    threads = WorkerThreads(CPU)
    assert threads.count == 3 and torch.get_num_threads() == 3
    with single_threaded():
        assert threads.map(lambda _: torch.get_num_threads(), range(9)) == [1] * 9
    assert torch.get_num_threads() == 3


def test_a_device_other_than_the_cpu_gets_no_threads(use_threads: UseThreads) -> None:
    use_threads(2)
    assert WorkerThreads(torch.device("meta")).count == 1


@pytest.mark.parametrize("count", COUNTS)
def test_results_come_in_order_and_errors_come_through(use_threads: UseThreads, count: int) -> None:
    use_threads(count)
    threads = WorkerThreads(CPU)
    assert threads.map(lambda a, b: 10 * a + b, range(20), range(20)) == list(range(0, 220, 11))
    with pytest.raises(ZeroDivisionError):
        threads.map(lambda value: 1 / value, [1, 0, 2])


def test_what_no_thread_has_begun_is_done_by_whoever_waits_for_it(use_threads: UseThreads) -> None:
    use_threads(2)
    threads, go_on = WorkerThreads(CPU), threading.Event()
    held = threads.submit(lambda: go_on.wait(60))  # the only other thread is busy with this
    waiting = [threads.submit(threading.get_ident) for _ in range(3)]
    dropped = threads.submit(lambda: pytest.fail("nobody asked for it"))
    dropped.give_up()
    assert finished(waiting) == [threading.get_ident()] * 3
    go_on.set()
    assert held.result() is True


def test_scores_ratings_and_calibration_are_the_same_to_the_last_bit(use_threads: UseThreads) -> None:
    data = blobs(64)
    loss = make_loss("dice", data.patches.class_frequencies)
    patches = data.validation_images, data.validation_targets
    specification = NetworkSpecification.for_patches(64, NETWORK, in_channels=1, classes=2)
    found = []
    for count in COUNTS:
        use_threads(count)
        threads, net = WorkerThreads(CPU), network()
        scores = score_network(net, *patches, 2, loss, batch_size=4, threads=threads)
        temperature = calibrate(net, *patches, batch_size=4, threads=threads)
        torch.manual_seed(0)
        settings = SearchSettings(patch_size=64, batch_size=4, network=NETWORK)
        supernet = Supernet(SearchSpace(), specification, settings, *patches, loss)
        rating = supernet.rate(SearchSpace().sample(np.random.default_rng(0)))
        found.append((scores.loss, scores.mean_iou, temperature, rating))
    assert found == [found[0]] * len(COUNTS)


def test_a_training_is_the_same_for_any_number_of_threads(use_threads: UseThreads) -> None:
    settings = TrainSettings(
        epochs=3,
        steps_per_epoch=10,
        batch_size=4,
        patch_size=64,
        network=NETWORK,
        optimization=OptimizationSettings(average_weights=0.9),
    )
    told, weights = [], []
    for count in COUNTS:
        use_threads(count)
        listener = Events()
        result = Trainer(network(), blobs(64), settings).run(report=listener)
        assert result.best.mean_iou > 0.7
        told.append([(e.loss, e.validation_loss, e.mean_iou) for e in listener.of(Epoch)])
        weights.append(result.best.weights)
    assert told == [told[0]] * len(COUNTS)
    for name, value in weights[0].items():
        assert all(torch.equal(value, other[name]) for other in weights), name


def test_a_search_is_the_same_for_any_number_of_threads(use_threads: UseThreads) -> None:
    settings = SearchSettings(
        epochs=2,
        patch_size=32,
        batch_size=4,
        steps_per_epoch=4,
        warmup_fraction=0.5,
        updates_per_epoch=2,
        samples_per_update=2,
        space=SearchSpace(cells=1),
        controller=ControllerSettings(learning_rate=0.01),
        selection=SelectionSettings(candidates=2, finalists=2, steps=4),
        network=NetworkSettings(base_width=8, max_width=16),
    )
    told = []
    for count in COUNTS:
        use_threads(count)
        listener = Events()
        result = Search(blobs(), settings, in_channels=1).run(report=listener)
        assert result is not None
        epochs = [(e.loss, e.reward) for e in listener.of(Epoch)]
        told.append((epochs, [(f.architecture, f.rating, f.score, f.loss) for f in result.finalists]))
    assert told == [told[0]] * len(COUNTS)

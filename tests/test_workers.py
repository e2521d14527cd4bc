"""Scores by several workers: the same bits as by one process, in local processes and on a Ray cluster."""

import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import two_nodes

from kdprune import registry
from kdprune.artefact import Artefact, obtain
from kdprune.cli.commands import main
from kdprune.data.scores import load_scores
from kdprune.geometry import dedup, distances, kmeans, neighbours
from kdprune.records.rows import About, Column, RowFiles, RowRecord, Rows
from kdprune.runs.processes import Processes
from kdprune.runs.sent import packed, unpacked
from kdprune.runs.workers import launched
from kdprune.scorers.common.apply import declared, score
from kdprune.scorers.common.features import observed
from kdprune.scorers.common.observation import Observation, observe

N, D, C = 17_000, 6, 3  # three shards, and clusters that lie in all of them

DIVIDED = ["semdedup", "prototypes(clusters=30)", "supervised_prototypes", "moderate", "d2(k=3)",
           "teacher_prototypes(clusters=4)", "teacher_supervised_prototypes"]  # fmt: skip


def written(folder, kind="embeddings", total=N, d=D, seed=0):
    """A finished record of clustered features, with samples that were not observed and copies."""
    numbers = np.random.default_rng(seed)
    labels_N = numbers.integers(C, size=total)
    x_ND = 4 * numbers.normal(size=(40, d))[numbers.integers(40, size=total)] + numbers.normal(size=(total, d))
    x_ND[total // 2 : total // 2 + 50] = x_ND[:50]
    x_ND[[5, total // 2 + 60, total - 1]] = np.nan
    about = About(kind, total, {"features": Column(d, "float16")}, "print", tuple("abc"), {})
    files = RowFiles(folder, about)

    def make():
        files.create(labels_N)
        for shard in range(about.shards):
            files.write(shard, {"features": x_ND[about.ids(shard)]})
        return files.names()

    obtain(Artefact(folder, "a record", {"seed": seed}), make)
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return {kind: observe([written(folder / kind, kind)]) for kind in ("embeddings", "teacher")}


def scored(text, records, mapper=map):
    record = records[declared(text.partition("(")[0]).needs]
    difficulty = np.random.default_rng(1).random(record.total).astype(np.float32)
    difficulty[7] = np.nan
    return score(text, record, difficulty=difficulty, mapper=mapper, seed=3).values


@pytest.fixture(scope="module")
def alone(records):
    """The scores by this process."""
    return {text: scored(text, records) for text in DIVIDED}


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_scores_have_the_same_bits_for_any_number_of_workers(records, alone, count):
    with Processes(count) as processes:
        for text in DIVIDED:
            np.testing.assert_array_equal(scored(text, records, processes), alone[text], err_msg=text)
    assert np.isnan(alone["moderate"]).nonzero()[0].tolist() == [5, N // 2 + 60, N - 1]


def test_d2_looks_into_nearby_clusters_in_workers(records, monkeypatch):
    import kdprune.scorers.d2 as module

    monkeypatch.setattr(module, "EXACT", 1000)
    one = scored("d2(k=3)", records)
    with Processes(2) as processes:
        np.testing.assert_array_equal(scored("d2(k=3)", records, processes), one)
    monkeypatch.setattr(module, "EXACT", 2**17)
    assert np.mean((scored("d2(k=3)", records) > 0) == (one > 0)) > 0.9


def test_every_scorer_that_is_divided_is_tested():
    assert max(neighbours.QUERIES, dedup.AT_ONCE) < N  # several calls, or equal bits show nothing
    divided = {name for name in registry.names("scorers") if "mapper" in declared(name).reads}
    assert divided == {text.partition("(")[0] for text in DIVIDED}


def elsewhere(function, *iterables):
    """A mapper that is not `map`, as workers are."""
    return map(function, *iterables)


@pytest.mark.parametrize("text", DIVIDED)
def test_only_blocks_and_clusters_are_read_by_anybody(records, monkeypatch, text):
    """Whatever is read, for a block, a cluster or first centroids, is a small part of the rows."""
    read, most, slices, at = [], N // 3, Rows.__getitem__, Rows.at
    monkeypatch.setattr(Rows, "__getitem__", lambda *given: (part := slices(*given), read.append(len(part)))[0])
    monkeypatch.setattr(Rows, "at", lambda *given: (part := at(*given), read.append(len(part)))[0])
    for place in ("scorers.common.features.BLOCK", "geometry.distances.BLOCK", "geometry.dedup.AT_ONCE"):
        monkeypatch.setattr(f"kdprune.{place}", 1000)
    monkeypatch.setattr("kdprune.scorers.d2.EXACT", 1000)
    monkeypatch.setattr("kdprune.scorers.d2.PROBES", 2)
    for function in (kmeans.kmeans, kmeans.assign, distances.to_class_mean, distances.to_class_median):
        monkeypatch.setitem(function.__kwdefaults__, "block_size", 1000)
    scored(text, records, elsewhere)
    assert 0 < max(read) <= most
    read.clear()
    scored(text, records)
    assert max(read) >= N - 4  # while `map` reads what fits into memory


def test_a_large_class_is_sorted_some_features_at_a_time(monkeypatch):
    x_ND, labels_N = torch.randn(300, 7), torch.arange(300) % 2
    whole = distances.to_class_median(x_ND, labels_N)
    monkeypatch.setattr(distances, "CELLS", 310)
    assert torch.equal(distances.to_class_median(x_ND, labels_N), whole)


def test_rows_by_position_are_those_of_slices(records):
    rows = records["embeddings"].rows("features")
    index = np.random.default_rng(0).integers(N, size=500)
    np.testing.assert_array_equal(rows.at(index), rows[0:N][index])
    assert rows.at(index[:0]).shape == (0, D)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_of_a_tensor_only_what_is_seen_is_sent():
    whole = torch.arange(100_000).double()
    sent = packed((partial(torch.add, whole[3:5], other=whole[:2]), [whole[7]], "text", (1, 2)))
    assert len(pickle.dumps(sent)) < 2000
    function, (number,), text, span = unpacked(pickle.loads(pickle.dumps(sent)))
    assert function().tolist() == [3, 5]
    assert (number, text, span) == (7, "text", (1, 2))


def test_what_a_worker_gets_of_a_record_is_where_it_lies(records):
    rows, positions = observed(records["embeddings"].rows("features"), mapper=partial(map))
    sent = pickle.dumps(rows)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert len(again) == len(positions) == N - 3
    np.testing.assert_array_equal(again[8000:9000], rows[8000:9000])
    np.testing.assert_array_equal(again.at(np.array([15_000, 4, 5])), rows[0:N][[15_000, 4, 5]])


# --- local processes --------------------------------------------------------------------------------------------------


def plus(x, y):
    return x + y


def refuse(x):
    if x >= 3:
        time.sleep(0.2 if x == 3 else 0)
        raise ValueError(f"{x} is too much")
    return x


def threads(_):
    return torch.get_num_threads(), os.getpid()


def die(x):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds):
    time.sleep(seconds)


@pytest.fixture(scope="module")
def two():
    with Processes(2) as processes:
        yield processes


def test_processes_map_as_map_does(two):
    assert list(two(plus, range(50), range(1, 60))) == list(map(plus, range(50), range(1, 60)))
    assert list(two(plus, [], [])) == []
    (total,) = two(partial(plus, torch.ones(3)), [torch.arange(3)])
    assert total.tolist() == [1, 2, 3]
    found = list(two(threads, range(30)))
    assert {count for count, _ in found} == {1}
    assert len({process for _, process in found} - {os.getpid()}) == 2


def test_the_first_mistake_in_order_is_raised_as_it_was(two):
    with pytest.raises(ValueError, match=r"^3 is too much$"):
        list(two(refuse, range(6)))
    assert list(two(refuse, range(3))) == [0, 1, 2]


def test_results_that_nobody_asks_for_do_no_harm(two):
    for result in two(plus, range(50), range(50)):
        if result == 4:
            break
    assert list(two(plus, [1], [1])) == [2]


def test_a_worker_that_dies_is_said():
    with Processes(2) as processes, pytest.raises(ChildProcessError, match=r"died .*SIGKILL.*fewer workers"):
        list(processes(die, range(4)))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_die_with_their_parent(tmp_path, end):
    """When it is killed, and when Ctrl-C reaches all of them, which only the parent answers."""
    program = (
        "from test_workers import *\n"
        "if __name__ == '__main__':\n"
        "    with Processes(2) as p:\n"
        "        found = [process for _, process in p(threads, range(20))]\n"
        "        print(*{*found, *(w.pid for w in p._workers.values())}, flush=True)\n"
        "        try:\n"
        "            list(p(sleep, [60] * 2))\n"
        "        except KeyboardInterrupt:\n"
        "            sys.exit(130)\n"
    )
    (tmp_path / "program.py").write_text(program)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], env={**os.environ, "PYTHONPATH": paths}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(0.5)  # until they sleep, too
    os.kill(parent.pid, end) if end == signal.SIGKILL else os.killpg(parent.pid, end)
    assert parent.wait(120) == (-end if end == signal.SIGKILL else 130)
    deadline = time.monotonic() + 20
    while any(running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert parent.stderr is not None
    assert parent.stderr.read() == b""


def running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the command ------------------------------------------------------------------------------------------------------


def files_of(folder):
    return {path.parent.name: load_scores(path).values for path in sorted(folder.glob("*/scores.parquet"))}


def test_the_command_scores_with_workers(tmp_path, records, capsys, monkeypatch):
    monkeypatch.chdir(records["embeddings"].record.folder.parent)
    command = ["score", "semdedup", "moderate", "--from", "embeddings", "--output"]
    assert main([*command, str(tmp_path / "one")]) == 0
    assert main([*command, str(tmp_path / "two"), "--workers", "2"]) == 0
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert list(one) == list(two) != []  # the workers are no part of the key
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--workers", "0"], ["--workers: 0 given", "1 or more"]),
        (["--workers", "two"], ["workers"]),
        (["--launcher", "rai"], ["launcher", "ray"]),
        (["--ray_address", "auto"], ["--ray_address", "without --launcher ray"]),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, records, capsys, options, messages):
    folder = str(records["embeddings"].record.folder)
    try:
        status = main(["score", "moderate", "--from", folder, "--output", str(tmp_path), *options])
    except SystemExit as error:
        status = error.code
    assert status == 2
    text = capsys.readouterr().err
    for message in messages:
        assert message in text
    assert not list(tmp_path.iterdir())


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--launcher: Ray is not installed: pip install 'kdprune\[ray\]'"):
        launched("ray")


def test_workers_have_no_effect_on_scorers_that_are_not_divided(tmp_path, records, capsys):
    folder = str(records["embeddings"].record.folder)
    command = ["score", "kcenter(keep_fraction=0.001)", "moderate", "--from", folder, "--output", str(tmp_path)]
    assert main([*command, "--workers", "1"]) == 0
    (warned,) = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert "--workers has no effect: computed in this process: kcenter(keep_fraction=0.001)" in warned


def test_what_is_wrong_with_a_row_is_said_from_a_worker(tmp_path, two):
    folder = written(tmp_path / "record")
    shard = np.load(folder / "features_00001.npy")
    shard[3, 0] = np.inf
    np.save(folder / "features_00001.npy", shard)
    record = Observation("embeddings", np.zeros(N, np.int64), "print", ("a",), {}, record=RowRecord(folder))
    with pytest.raises(ValueError, match="row 8194 has numbers that are not finite"):  # the third of all is missing
        score("supervised_prototypes", record, mapper=two)


# --- a Ray cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes on this machine."""
    with two_nodes() as (nodes, _):
        yield nodes.address


def where(_):
    import ray

    time.sleep(0.2)  # so that one node alone is too slow
    return ray.get_runtime_context().get_node_id(), torch.get_num_threads()


@pytest.mark.slow
def test_a_cluster_of_two_nodes_has_the_same_bits(cluster, records, alone):
    with launched("ray", ray_address=cluster) as mapper:
        found = list(mapper(where, range(20)))
        assert len({node for node, _ in found}) == 2
        assert {count for _, count in found} == {1}
        for text in DIVIDED:
            np.testing.assert_array_equal(scored(text, records, mapper), alone[text], err_msg=text)


@pytest.mark.slow
def test_a_cluster_maps_as_map_does_and_says_what_went_wrong(cluster, tmp_path):
    with launched("ray", ray_address=cluster, workers=2) as mapper:
        assert list(mapper(plus, range(20), range(30))) == list(map(plus, range(20), range(30)))
        (total,) = mapper(partial(plus, torch.ones(3)), [torch.arange(3)])
        assert total.tolist() == [1, 2, 3]
        with pytest.raises(ValueError, match=r"^3 is too much$"):
            list(mapper(refuse, range(6)))
        with pytest.raises(ChildProcessError, match="WorkerCrashed"):
            list(mapper(die, range(1)))


def large(number):
    """A result that stays on the node which made it until it is asked for."""
    return where(number)[0], np.full(2**18, number)


@pytest.mark.slow
def test_tasks_of_a_node_that_is_lost_are_made_again_elsewhere():
    with two_nodes() as (nodes, second), launched("ray", ray_address=nodes.address) as mapper:
        results = mapper(large, range(16))
        found = [next(results) for _ in range(4)]
        nodes.remove_node(second, allow_graceful=False)  # with what it was doing, and what it had done
        found += results
    assert len({node for node, _ in found}) == 2
    assert [(values == number).all() for number, (_, values) in enumerate(found)] == [True] * 16


@pytest.mark.slow
def test_the_command_scores_on_a_cluster(cluster, tmp_path, records, monkeypatch):
    monkeypatch.chdir(records["embeddings"].record.folder.parent)
    command = ["score", "prototypes", "supervised_prototypes", "--from", "embeddings", "--output"]
    assert main([*command, str(tmp_path / "one")]) == 0
    assert main([*command, str(tmp_path / "two"), "--launcher", "ray", "--ray_address", cluster]) == 0
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert list(one) == list(two) != []
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


def test_a_cluster_that_is_not_there_is_said(tmp_path, records, capsys):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'kdprune[ray]'")
    folder = str(records["embeddings"].record.folder)
    assert main(["score", "moderate", "--from", folder, "--output", str(tmp_path), "--launcher", "ray",
                 "--ray_address", "127.0.0.1:1"]) == 2  # fmt: skip
    assert "error: --ray_address: no Ray cluster at '127.0.0.1:1'" in capsys.readouterr().err


# --- memory -----------------------------------------------------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
import numpy as np
from kdprune.runs.processes import Processes
from kdprune.scorers.common.apply import score
from kdprune.scorers.common.observation import observe

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

if __name__ == "__main__":
    record, small = observe([Path(sys.argv[1])]), observe([Path(sys.argv[2])])
    with Processes(2) as processes:
        for text in sys.argv[3:]:
            score(text, small, mapper=processes, difficulty=np.ones(small.total, np.float32))  # what is loaded once
            open("/proc/self/clear_refs", "w").write("5")  # the highest so far is what is there now
            before = status("VmRSS")
            score(text, record, mapper=processes, difficulty=np.ones(record.total, np.float32))
            print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says how much memory was taken")
def test_the_driver_holds_no_features(tmp_path):
    total, d = 200_000, 256
    large, small = written(tmp_path / "large", total=total, d=d), written(tmp_path / "small", d=d)
    (tmp_path / "driver.py").write_text(DRIVER)
    texts = ["semdedup", "prototypes", "supervised_prototypes", "moderate"]
    done = subprocess.run(
        [sys.executable, tmp_path / "driver.py", large, small, *texts], capture_output=True, text=True, check=True
    )
    for text, taken in zip(texts, done.stdout.split(), strict=True):
        assert int(taken) < total * d * 4 / 3, text

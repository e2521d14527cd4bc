"""A report's runs in order: a section for each data set, in it arms, and series of arms along the keep fraction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdprune.messages import listed
from kdprune.report.entries import ABOUT_TEACHER, Entry, Gathered, Words
from kdprune.report.statistics import Difference, mean_and_sd, paired_difference

KEEP = "subset.keep_fraction"
TEACHERS_SEED = "seeds.teacher"
ARM = "arm"  # the coordinate of named arms
CLOSE = 0.02  # relative; a kept part that differs more from the setting was not chosen by it

_SHORT = {
    KEEP: "keep", "teacher.models": "teacher", "student.model": "student", "subset.scorer": "scorer",
    "subset.selector": "selector", "distill.alpha": "α", "distill.loss": "loss", "distill.temperature": "T",
    "train.lr": "lr", "train.epochs": "epochs", "train.budget": "budget",
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds only.

    Attributes:
        label: its coordinates in words.
        series: index of the arms that differ from it in the keep fraction only.
        keep: kept part of the training set; None where no run says it.
    """

    label: str
    coordinates: Words
    entries: Sequence[Entry]
    series: int
    keep: float | None

    @property
    def finished(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.finished]

    @property
    def top1(self) -> dict[Any, float]:
        """Of finished runs by the student's seeds, in percent; where one had teachers of several seeds, their mean.

        Runs of one student's seed share all that it draws, so they are one repetition, whoever taught them.
        """
        groups: dict[Any, list[float]] = {}
        for entry in self.entries:
            if entry.top1 is not None:
                own = (seed for seed in entry.seeds.items() if seed[0] != TEACHERS_SEED)
                groups.setdefault(tuple(sorted(own)), []).append(entry.top1)
        return {seeds: sum(several) / len(several) for seeds, several in groups.items()}

    @property
    def mean_and_sd(self) -> tuple[float | None, float | None]:
        return mean_and_sd(list(self.top1.values()))

    @property
    def guided(self) -> bool:
        """Whether its runs have a teacher."""
        return any(entry.values.get("teacher.models") for entry in self.entries)

    @property
    def tuned(self) -> Words:
        """What was chosen for it; several values where its runs differ in it."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.tuned)
        return {n: "/".join(dict.fromkeys(e.tuned[n] for e in self.entries if n in e.tuned)) for n in names}

    @property
    def ends(self) -> Words:
        """Which of these are the smallest or largest of the tried ones; see `Entry`."""
        return {name: which for entry in self.entries for name, which in entry.ends.items()}


@dataclass(frozen=True)
class Section:
    """Runs on one data set.

    Attributes:
        series: labels, by index.
        baselines: index of the arm that each arm is compared with, by its own index.
    """

    title: str
    arms: Sequence[Arm]
    series: Sequence[str]
    baselines: Mapping[int, int]
    names: Sequence[str]
    tuned: Sequence[str]

    @property
    def entries(self) -> list[Entry]:
        return [entry for arm in self.arms for entry in arm.entries]

    def difference(self, arm: int) -> Difference | None:
        """To its baseline; None for a baseline, and where there is none."""
        base = self.baselines.get(arm)
        if base is None:
            return None
        of_arm, of_base = _by_common_seeds(self.arms[arm].top1, self.arms[base].top1)
        return paired_difference(of_arm, of_base)

    @property
    def best(self) -> set[int]:
        """Indices of the arms with the highest mean at each keep fraction, of two arms or more."""
        found: set[int] = set()
        for keep in {arm.keep for arm in self.arms}:
            means = {i: arm.mean_and_sd[0] for i, arm in enumerate(self.arms) if arm.keep == keep}
            there = {i: round(mean, 9) for i, mean in means.items() if mean is not None}
            if len(there) > 1:
                found |= {i for i, mean in there.items() if mean == max(there.values())}
        return found


def _by_common_seeds(*arms: Mapping[Any, float]) -> list[dict[Any, float]]:
    """Results by the seeds that all arms have: of others, such as those of the data where one arm has none, the mean.

    Runs that share a partner are no pairs of their own: their differences are not independent.

    Args:
        arms: results by seeds, each a sequence of names with values.
    """
    names = [{name for name, _ in seeds} for arm in arms for seeds in arm]
    common = set.intersection(*names) if names else set()
    found = []
    for arm in arms:
        groups: dict[Any, list[float]] = {}
        for seeds, top1 in arm.items():
            groups.setdefault(tuple(one for one in seeds if one[0] in common), []).append(top1)
        found.append({seeds: sum(several) / len(several) for seeds, several in groups.items()})
    return found


def sections_of(gathered: Gathered, baseline: Words | None = None) -> list[Section]:
    """The sections of a report, those with most runs first.

    Args:
        baseline: coordinates of the arms that others are compared with; by default, see `_baseline`.

    Raises:
        ValueError: no arm has these coordinates.
    """
    groups: dict[str, list[Entry]] = {}
    titles: dict[str, str] = {}
    known = _known_data(gathered.entries)
    for entry in gathered.entries:
        name, id = _data(entry, known)
        titles.setdefault(id, name)
        groups.setdefault(id, []).append(entry)
    sections = [_section(titles[id], entries, gathered, baseline) for id, entries in groups.items()]
    if baseline is not None and not any(section.baselines for section in sections):
        names = {f"{n}={w}" for e in gathered.entries for n, w in e.coordinates.items()}
        given = ", ".join(f"{name}={word}" for name, word in baseline.items())
        allowed = listed(sorted(names)) if names else "none, since there is one arm only"
        raise ValueError(f"--baseline: no arm has {given} beside one that has not; allowed are of {allowed}")
    return sorted(sections, key=lambda section: -len(section.entries))


def label_of(coordinates: Words) -> str:
    """An arm for a person: "α 0.5 · keep 0.1"."""
    if coordinates.get("teacher.models") == "none":
        coordinates = {n: w for n, w in coordinates.items() if not n.startswith("distill.")}
    return " · ".join(_words(name, word) for name, word in coordinates.items()) or "all runs"


def title_of(name: str) -> str:
    """A setting as the head of a column."""
    return _SHORT.get(name, name.removeprefix("train."))


def _words(name: str, word: str) -> str:
    if name in (ARM, "study"):
        return word
    if word == "none":
        return f"no {title_of(name)}"
    return f"{title_of(name)} {word}"


def _section(title: str, entries: Sequence[Entry], gathered: Gathered, baseline: Words | None) -> Section:
    names = list(dict.fromkeys(name for entry in entries for name in entry.coordinates))
    keep_axis = _keep_axis(names, entries, gathered.axis_of)
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(sorted(entry.coordinates.items())), []).append(entry)
    series: dict[str, int] = {}
    arms = []
    for group in groups.values():
        along = {n: w for n, w in group[0].coordinates.items() if n == KEEP}
        rest = {n: w for n, w in group[0].coordinates.items() if n not in keep_axis}
        label = label_of({**rest, **along})
        arms.append(
            Arm(label, group[0].coordinates, group, series.setdefault(label_of(rest), len(series)), _keep(group))
        )
    tuned = list(dict.fromkeys(name for entry in entries for name in entry.tuned))
    return Section(title, arms, list(series), _baselines(arms, baseline), names, tuned)


def _keep_axis(names: Sequence[str], entries: Sequence[Entry], axis_of: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The keep fraction and what it decides: what the study zips to it, and settings of the training."""
    if KEEP not in names:
        return frozenset()
    found = {KEEP}
    for name in names:
        values: dict[str, set[str]] = {}
        for entry in entries:
            values.setdefault(entry.coordinates.get(KEEP, ""), set()).add(entry.coordinates.get(name, ""))
        decided = all(len(several) == 1 for several in values.values())
        if decided and (name in axis_of.get(KEEP, ()) or (name.startswith("train.") and len(values) > 1)):
            found.add(name)
    return frozenset(found)


def _keep(entries: Sequence[Entry]) -> float | None:
    """The setting, or what was kept where something else decided it."""
    for entry in entries:
        asked, got = entry.values.get(KEEP), entry.summary.get("keep_fraction")
        if isinstance(got, float) and not (isinstance(asked, int | float) and abs(got - asked) <= CLOSE * asked):
            return round(got, 4)
        if isinstance(asked, int | float):
            return float(asked)
    try:
        return float(entries[0].coordinates[KEEP])
    except (KeyError, ValueError):
        return None


def _baselines(arms: Sequence[Arm], given: Words | None) -> dict[int, int]:
    """Of each arm the index of its baseline: at the same keep fraction, and as like it as there is.

    Without a choice: an arm without a teacher; else one that keeps at random; else the first of the study.
    """
    if given is not None:
        candidates = [i for i, arm in enumerate(arms) if given.items() <= arm.coordinates.items()]
    else:
        plain = [i for i, arm in enumerate(arms) if arm.finished and not arm.guided]
        chance = [i for i, arm in enumerate(arms) if arm.finished and _by_chance(arm)]
        candidates = next((c for c in (plain, chance) if 0 < len(c) < len(arms)), [0])
    found = {}
    for index, arm in enumerate(arms):
        same = [i for i in candidates if arms[i].keep == arm.keep]
        if index not in candidates and same:
            found[index] = max(same, key=lambda i: (_likeness(arm, arms[i]), -i))
    return found


def _by_chance(arm: Arm) -> bool:
    return arm.finished[0].values.get("subset.selector") == "random"


def _likeness(arm: Arm, other: Arm) -> int:
    """In how many coordinates two arms agree, but for those about a teacher."""
    return sum(
        word == other.coordinates.get(name)
        for name, word in arm.coordinates.items()
        if not name.startswith(ABOUT_TEACHER)
    )


def _known_data(entries: Iterable[Entry]) -> dict[str, str]:
    """Fingerprints of data sets by their name, of those names that stand for one only."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        if entry.summary:
            found.setdefault(str(entry.values.get("data.dataset")), set()).add(_fingerprint(entry))
    return {name: next(iter(prints)) for name, prints in found.items() if len(prints) == 1}


def _fingerprint(entry: Entry) -> str:
    inputs = entry.summary.get("inputs")
    test = inputs.get("test_data") if isinstance(inputs, dict) else None
    return f"{entry.summary.get('dataset_fingerprint')}-{test}"


def _data(entry: Entry, known: Mapping[str, str]) -> tuple[str, str]:
    """The name of a run's data set, and what tells it apart from others of this name."""
    if entry.summary:
        return str(entry.summary.get("dataset")), _fingerprint(entry)
    name = entry.values.get("data.dataset") or entry.coordinates.get("data.dataset")
    if name is None:  # it was never begun: as the others of its study
        name = next(iter(known), "unknown data")
    return str(name), known.get(str(name), str(name))

"""A gallery of one model's embeddings: who is this, and where were they seen?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from resight.errors import ConfigError, GalleryError
from resight.gallery.engines.contract import EVERYTHING, Engine
from resight.gallery.record import Filter, Near, Record
from resight.retrieval.calibration import Calibration
from resight.retrieval.rerank import rerank as rerank_scores
from resight.retrieval.scores import InnerProducts

_RERANKED: Final = 200  # records that are put in order anew
_MORE: Final = 4  # times as many are looked at where answers are grouped


@dataclass(frozen=True)
class Answer:
    """One record that was found."""

    record: Record
    similarity: float
    """Inner product, from -1 to 1."""
    probability: float | None
    """That it is the same identity, by the model's calibration; None where the model has none."""
    known: bool | None
    """Whether it reaches the calibration's threshold: where no answer does, it is nobody known."""
    members: int = 1
    """Records of its group among those looked at, where answers are grouped."""


class Gallery:
    """Records of one model's embeddings in an engine.

    Args:
        engine: that keeps them.
        calibration: of the model; gives answers a probability, and decides who is nobody known.
        prior: probability, before anything is looked at, that two records are of one identity.
    """

    def __init__(self, engine: Engine, calibration: Calibration | None = None, prior: float = 0.5) -> None:
        self.engine, self.calibration, self.prior = engine, calibration, prior

    def require(self, fingerprint: str) -> None:
        """Makes sure that embeddings of a model may be kept and searched here.

        Raises:
            GalleryError: the gallery is of another model.
        """
        own = self.engine.about["fingerprint"]
        if own != fingerprint:
            raise GalleryError(
                f"the gallery holds embeddings of the model {own}, and these are of {fingerprint}; embeddings of two "
                "models cannot be compared: embed the pictures again into a gallery of its own"
            )

    def add(self, records: Sequence[Record]) -> list[str]:
        """Keeps records; whoever returns from here finds them on disk. Returns their ids.

        Raises:
            GalleryError: a vector has another width, is not finite or not of unit length.
        """
        width = self.engine.about["width"]
        for record in records:
            vector = np.asarray(record.vector)
            if vector.shape != (width,) or not np.isfinite(vector).all() or abs(np.linalg.norm(vector) - 1) > 1e-2:
                raise GalleryError(
                    f"the vector of record {record.id!r} is not {width} finite numbers of unit length; the gallery's "
                    "model makes such ones"
                )
        self.engine.add(records)
        return [record.id for record in records]

    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        where: Filter = EVERYTHING,
        group: str | None = None,
        rerank: bool = False,
    ) -> list[list[Answer]]:
        """For each of float32 [Q, D] its at most k answers, nearest first.

        Args:
            vectors: of unit length. Several pictures of the same one ask as one through `as_one`.
            k: answers, or groups of them.
            meant: which records are searched.
            group: `identity` or `tracklet`: one answer for each, its nearest record. Records without it stand alone.
            rerank: put the nearest in order by k-reciprocal neighbours among themselves (Zhong et al. 2017); their
                similarities stay what they are.

        Raises:
            ConfigError: there is no such group, or a filter names a field of metadata that no record has.
        """
        if group not in (None, "identity", "tracklet"):
            raise ConfigError(f"answers can be grouped by identity or tracklet, not by {group!r}")
        self._require_fields(where)
        vectors = np.atleast_2d(np.asarray(vectors, np.float32))
        asked, width = vectors.shape[1], self.engine.about["width"]
        if asked != width:
            raise GalleryError(f"what is asked for has {asked} numbers, and the gallery's records have {width}")
        return [self._found(vector, k, where, group, rerank) for vector in vectors]

    def alike(self, record_id: str, k: int = 10, where: Filter = EVERYTHING, group: str | None = None) -> list[Answer]:
        """`search` by a record that is in the gallery, which is itself left out.

        Raises:
            GalleryError: there is no such record.
        """
        answers = self.search(self.record(record_id).vector[None], k + 1, where, group)[0]
        return [a for a in answers if a.record.id != record_id][:k]

    def record(self, record_id: str) -> Record:
        """The record of an id.

        Raises:
            GalleryError: there is no such record.
        """
        found = self.engine.get([record_id])
        if not found:
            raise GalleryError(f"there is no record {record_id!r} in the gallery")
        return found[0]

    def name(self, ids: Sequence[str], identity: str | None) -> None:
        """Says who some records are (None: nobody knows); merges and splits identities. `undo` takes it back.

        Raises:
            GalleryError: one is not there.
        """
        before = self._of(ids)
        self.engine.name(list(before), identity)
        self._log({"did": "name", "identity": identity, "before": before})

    def undo(self) -> dict[str, Any]:
        """Takes the last naming back, and returns what it was.

        Raises:
            GalleryError: nothing was named.
        """
        log = self.engine.read_log()
        if not log:
            raise GalleryError("nothing was named in this gallery, so there is nothing to take back")
        last = log[-1]
        there = {record.id for record in self.engine.get(list(last["before"]))}
        for identity in set(last["before"].values()):
            self.engine.name([i for i, was in last["before"].items() if was == identity and i in there], identity)
        self.engine.write_log(log[:-1])
        return last

    def remove(self, ids: Sequence[str] = (), identity: str | None = None) -> int:
        """Removes records, or all of an identity, with every trace: record, vector, thumbnail, and their part in the
        log. Returns how many there were."""
        gone = set(ids)
        if identity is not None:
            gone |= {record.id for record in self.engine.scan(Filter(identity=(identity,)))}
        kept = list[dict[str, Any]]()
        for entry in self.engine.read_log():
            before = {i: was for i, was in entry["before"].items() if i not in gone}
            before = {i: None if identity is not None and was == identity else was for i, was in before.items()}
            if before and (identity is None or entry["identity"] != identity):
                kept.append({**entry, "before": before})
        self.engine.write_log(kept)  # first: stopped between the two, the records still say what is to be removed
        return self.engine.delete(sorted(gone))

    def _answers(self, near: Sequence[Near]) -> list[Answer]:
        held = {record.id: record for record in self.engine.get([n.id for n in near])}
        return [self._answer(held[n.id], n.similarity) for n in near if n.id in held]

    def _answer(self, record: Record, similarity: float) -> Answer:
        if self.calibration is None:
            return Answer(record, similarity, None, None)
        probability = float(self.calibration.of(np.array([similarity]), self.prior)[0])
        return Answer(record, similarity, probability, similarity >= self.calibration.threshold)

    def _found(self, vector: np.ndarray, k: int, where: Filter, group: str | None, again: bool) -> list[Answer]:
        """Looks at more and more records until they make k groups, or there are no more."""
        wanted, total = max(_RERANKED if again else 0, _MORE * k if group else k), self.engine.count(where)
        while True:
            answers = self._answers(self.engine.search(vector[None], wanted, where)[0])
            if again:
                answers = _reranked(vector, answers)
            if group is None:
                return answers[:k]
            groups: dict[str, Answer] = {}
            for answer in answers:
                label = getattr(answer.record, group)
                key = f"record {answer.record.id}" if label is None else f"group {label}"
                first = groups.setdefault(key, replace(answer, members=0))
                groups[key] = replace(first, members=first.members + 1)
            if len(groups) >= k or wanted >= total:
                return list(groups.values())[:k]
            wanted *= _MORE

    def _of(self, ids: Sequence[str]) -> dict[str, str | None]:
        found = {record.id: record.identity for record in self.engine.get(ids)}
        absent = [i for i in ids if i not in found]
        if absent:
            raise GalleryError(f"there is no record {absent[0]!r} in the gallery")
        return found

    def _require_fields(self, where: Filter) -> None:
        if not where.metadata or self.engine.count(where):
            return
        known = self.engine.fields()
        strange = sorted(set(where.metadata) - known)
        if strange:
            said = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"no record has a field {strange[0]!r}; the fields of metadata are: {said}")

    def _log(self, entry: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.engine.write_log([*self.engine.read_log(), {"at": now, **entry}])


def _reranked(vector: np.ndarray, answers: list[Answer]) -> list[Answer]:
    if len(answers) < 2:
        return answers
    scores = InnerProducts(vector[None], np.stack([answer.record.vector for answer in answers]))
    order = rerank_scores(scores).rows(slice(0, 1))[0].argsort(descending=True, stable=True)
    return [answers[n] for n in order.tolist()]


def as_one(vectors: np.ndarray) -> np.ndarray:
    """Several embeddings of the same one, float32 [N, D], as a single question [1, D] of unit length: their mean."""
    mean = np.asarray(vectors, np.float32).mean(0, keepdims=True)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)

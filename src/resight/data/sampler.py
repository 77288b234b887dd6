"""P x K sampling: each batch holds P identities and K sightings of each (Hermans et al. 2017, section 3)."""

from collections.abc import Sequence

import numpy as np

from resight.errors import ConfigError


class PKSampler:
    """Deals a training set into batches of P identities x K sightings, anew in each epoch.

    An identity's sightings are shuffled and cut into groups of K; one with fewer than K is filled up by drawing again,
    and what is left over after the last whole group waits for another epoch. Identities that still have a group are
    drawn at random, P at a time, until fewer than P remain. Everything follows from the seed and the epoch.

    Args:
        identity: the identity's number of every row.
        identities: P.
        instances: K.
        seed: of the draws.

    Raises:
        ConfigError: there are fewer than P identities.
    """

    def __init__(self, identity: Sequence[int], identities: int, instances: int, seed: int) -> None:
        numbers = np.asarray(identity)
        self.rows = {int(i): np.flatnonzero(numbers == i) for i in np.unique(numbers)}
        if len(self.rows) < identities:
            raise ConfigError(
                f"batches of {identities} x {instances} (sampling.identities x sampling.instances) cannot be made: "
                f"the training set has {len(self.rows)} identities; lower --sampling.identities"
            )
        self.identities, self.instances, self.seed = identities, instances, seed

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of an epoch, each a list of P x K row numbers, one identity's K after another's."""
        rng = np.random.default_rng((self.seed, number))
        groups = {identity: self._groups(rows, rng) for identity, rows in self.rows.items()}
        batches: list[list[int]] = []
        while len(groups) >= self.identities:
            chosen = rng.choice(sorted(groups), self.identities, replace=False)
            batches.append([row for identity in chosen for row in groups[int(identity)].pop()])
            groups = {identity: left for identity, left in groups.items() if left}
        return batches

    def _groups(self, rows: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        k = self.instances
        if len(rows) < k:
            rows = np.concatenate([rows, rng.choice(rows, k - len(rows))])
        shuffled = rng.permutation(rows)
        return [shuffled[i : i + k].tolist() for i in range(0, len(shuffled) - k + 1, k)]

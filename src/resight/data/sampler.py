"""P x K sampling: each batch holds P identities and K sightings of each (Hermans et al. 2017, section 3)."""

from collections.abc import Sequence

import numpy as np

from resight.errors import ConfigError


class PKSampler:
    """Draws batches of P identities x K sightings, different ones in each epoch.

    The sightings of an identity are shuffled and divided into groups of K. An identity with fewer than K repeats some
    of them; sightings left over after the last complete group are not used in the epoch. Identities that still have a
    group are drawn at random, P at a time, until fewer than P remain. Seed and epoch determine all draws.

    Args:
        identity: number of the identity of each row.
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
                f"batches of {identities} x {instances} (sampling.identities x sampling.instances) are not possible: "
                f"the training set has {len(self.rows)} identities; lower --sampling.identities"
            )
        self.identities = identities
        self.instances = instances
        self.seed = seed

    def epoch(self, number: int) -> list[list[int]]:
        """Return the batches of an epoch, each a list of P x K rows in which the K of an identity are consecutive."""
        rng = np.random.default_rng((self.seed, number))
        groups = {identity: self._groups(rows, rng) for identity, rows in self.rows.items()}
        batches: list[list[int]] = []
        while len(groups) >= self.identities:
            identities = rng.choice(sorted(groups), self.identities, replace=False)
            batches.append([row for identity in identities for row in groups[int(identity)].pop()])
            groups = {identity: remaining for identity, remaining in groups.items() if remaining}
        return batches

    def _groups(self, rows: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        k = self.instances
        if len(rows) < k:
            rows = np.concatenate([rows, rng.choice(rows, k - len(rows))])
        shuffled = rng.permutation(rows)
        return [shuffled[i : i + k].tolist() for i in range(0, len(shuffled) - k + 1, k)]

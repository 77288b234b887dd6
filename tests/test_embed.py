"""Embedding and evaluating: modalities side by side or as a mean, mirror images, absent modalities."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional as F

from resight.config.sections import Evaluation, Model, Preprocessing
from resight.data.catalog import read_dataset
from resight.data.loader import Batch, Loader
from resight.data.vocabulary import Vocabulary
from resight.device import pick_device
from resight.errors import ConfigError
from resight.evaluation.evaluate import evaluate
from resight.inference.embed import embed_batch, embed_table
from resight.models.transreid import TransReID
from resight.report.strips import rank_strip

PICTURES = Preprocessing(size=(64, 32))


@pytest.fixture(scope="module")
def split(painted):
    return read_dataset("synthetic", painted)


@pytest.fixture(scope="module")
def vocabulary(split):
    return Vocabulary.of(split.train)


@pytest.fixture(scope="module")
def model(vocabulary):
    torch.manual_seed(0)
    settings = Model(backbone="test_vit", sie=("modality",), jpm=True)
    return TransReID(settings, PICTURES.size, vocabulary).eval()


@pytest.fixture(scope="module")
def batch(split, vocabulary) -> Batch:
    return next(iter(Loader(split.query, vocabulary, PICTURES.size, "bilinear").batches([[0, 5]])))


def alone(model, batch, row, modality, flip=False):
    x = batch.images[row, modality].float().div(255).sub(0.5).div(0.5)[None]
    x = x.flip(-1) if flip else x
    return F.normalize(model.embed(x, {"modality": torch.tensor([modality])}))[0]


def test_modalities_lie_side_by_side(model, batch):
    with torch.no_grad():
        found = embed_batch(model, batch, PICTURES, Evaluation())
        each = torch.cat([alone(model, batch, 1, m) for m in range(3)])
    torch.testing.assert_close(found[1], F.normalize(each, dim=0), rtol=1e-4, atol=1e-5)


def test_an_absent_modality_has_no_part(model, batch):
    present = batch.present.clone()
    present[1, 2] = False
    partial = Batch(batch.images, present, batch.identity, batch.camera, batch.view)
    with torch.no_grad():
        concat = embed_batch(model, partial, PICTURES, Evaluation())
        mean = embed_batch(model, partial, PICTURES, Evaluation(fusion="mean"))
        two = [alone(model, batch, 1, m) for m in range(2)]
    assert not concat[1, 2 * model.width :].any()
    torch.testing.assert_close(concat[1, : 2 * model.width], F.normalize(torch.cat(two), dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean[1], F.normalize(two[0] + two[1], dim=0), rtol=1e-4, atol=1e-5)


def test_mirror_images_are_averaged(model, batch):
    with torch.no_grad():
        found = embed_batch(model, batch, PICTURES, Evaluation(flip=True, fusion="mean"))
        each = [F.normalize(alone(model, batch, 0, m) + alone(model, batch, 0, m, flip=True), dim=0) for m in range(3)]
    torch.testing.assert_close(found[0], F.normalize(sum(each), dim=0), rtol=1e-4, atol=1e-5)


def test_the_batch_size_does_not_matter(model, split, vocabulary):
    one, many = (embed_table(model, split.query, vocabulary, PICTURES, Evaluation(batch=b)) for b in (3, 64))
    assert one.shape == (16, 3 * model.width)
    assert_allclose(one, many, atol=1e-5)
    assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)


def test_reranking_is_an_option_that_acts(model, split, vocabulary):
    plain, reranked = (evaluate(model, split, vocabulary, PICTURES, Evaluation(rerank=r)) for r in (False, True))
    assert not np.array_equal(plain.metrics.ap, reranked.metrics.ap)


def test_a_device_that_is_not_there():
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no device 'cuda:3'"):
            pick_device("cuda:3")


def test_rank_strip_frames_right_and_wrong(model, split, vocabulary):
    result = evaluate(model, split, vocabulary, PICTURES, Evaluation())
    picture = np.asarray(rank_strip(result, rows=2, k=4))
    _, hits = result.top(4)
    order = np.argsort(result.metrics.ap, kind="stable")
    for y, q in enumerate((order[0], order[-1])):
        for x, hit in enumerate(hits[q]):
            frame = picture[6 + y * (3 * 128 + 6 + 14 + 6), 18 + (x + 1) * 76]
            assert tuple(frame) == ((30, 150, 60) if hit else (200, 40, 40))

"""From images, tables and files of embeddings to records: one for each sighting, the same whichever way it comes in."""

import csv
import hashlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from conftest import picture, small_model
from gallery_engines import resight
from PIL import Image

import resight as api
from resight.config.sections import Embedding
from resight.data.image import thumbnail
from resight.data.sightings import MODALITIES, Sighting, SightingTable
from resight.errors import ConfigError, DatasetError, GalleryError
from resight.gallery.ingest import sighting_id
from resight.inference.embedder import Embedder
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, embeddings_table, write_embeddings, write_tables
from resight.inference.load import load


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model of three modalities."""
    return small_model(tmp_path_factory.mktemp("model") / "model", modalities=MODALITIES, sie=())


def one_sided(path, identity, camera):
    """A picture whose right half is black, so that its mirror image has another embedding."""
    pixels = np.asarray(Image.open(picture(path, identity, camera))).copy()
    pixels[:, pixels.shape[1] // 2 :] = 0
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def sightings(tmp_path):
    """Six of three modalities, and one of thermal alone."""
    table = [
        Sighting(
            {m: one_sided(tmp_path / "seen" / f"{n}-{m}.png", 10 * n + k, n) for k, m in enumerate(MODALITIES)},
            identity=f"p{n // 2}",
            camera=f"c{1 + n % 2}",
            time=float(n),
            tracklet=f"t{n}",
        )
        for n in range(6)
    ]
    table.append(Sighting({"tir": picture(tmp_path / "seen" / "only-tir.png", 99)}, identity="p9", camera="c1"))
    return SightingTable.of(table)


def write_csv(path, sightings):
    """A table with the columns rgb, nir and tir, relative to the table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*MODALITIES, "identity", "camera", "time", "tracklet"])
        writer.writeheader()
        for sighting in sightings:
            images = {m: p.relative_to(path.parent) for m, p in sighting.images.items()}
            labels = {name: getattr(sighting, name) for name in ("identity", "camera", "time", "tracklet")}
            writer.writerow({**images, **{n: v for n, v in labels.items() if v is not None}})
    return path


def assert_one_record_each(gallery, sightings, vectors, atol=1e-5):
    """A record for each sighting, with all its images and labels, and its embedding."""
    stored = {record.id: record for record in gallery.engine.scan()}
    assert len(stored) == len(gallery) == len(sightings)
    for sighting, vector in zip(sightings, vectors, strict=True):
        paths = [str(sighting.images[m].absolute()) for m in MODALITIES if m in sighting.images]
        record = stored[hashlib.sha256("|".join(paths).encode()).hexdigest()[:24]]
        assert record.images == {m: str(p.absolute()) for m, p in sighting.images.items()}
        assert record.modality == "+".join(m for m in MODALITIES if m in sighting.images)
        for name in ("identity", "camera", "time", "tracklet"):
            assert getattr(record, name) == getattr(sighting, name)
        np.testing.assert_allclose(record.vector, vector, atol=atol)


def test_a_sighting_of_three_modalities_is_one_record_through_ingest(tmp_path, model, sightings):
    with api.create_gallery(tmp_path / "g", model) as gallery:
        counts = []
        report = gallery.ingest(sightings, progress=counts.append)
        assert (report.added, report.already_present, report.corrupt) == (7, 0, [])
        assert counts[-1] == 7
        assert counts == sorted(counts)
        assert_one_record_each(gallery, sightings, load(model).embed(sightings))
        report = gallery.ingest(sightings)
        assert (report.added, report.already_present) == (0, 7)


def test_a_sighting_of_three_modalities_is_one_record_through_a_table(tmp_path, model, sightings, capsys):
    table = write_csv(tmp_path / "table.csv", sightings)
    printed = resight(capsys, "gallery", "add", tmp_path / "g", table, "--model", model, "--quiet")
    assert "7 added, 0 already present, 0 corrupt" in printed
    with api.open_gallery(tmp_path / "g") as gallery:
        assert_one_record_each(gallery, sightings, load(model).embed(sightings))


def test_a_sighting_of_three_modalities_is_one_record_through_a_file_of_embeddings(tmp_path, model, sightings, capsys):
    table, file = write_csv(tmp_path / "table.csv", sightings), tmp_path / "embeddings.parquet"
    resight(capsys, "extract", model, table, "--out", file, "--quiet")
    resight(capsys, "gallery", "create", tmp_path / "g", "--model", model)
    words = ["gallery", "add", tmp_path / "g", "--embeddings", file, "--metadata", "floor=2", "--quiet"]
    assert "7 added, 0 already present" in resight(capsys, *words)
    with api.open_gallery(tmp_path / "g") as gallery:
        assert_one_record_each(gallery, sightings, load(model).embed(sightings))
        assert all(record.metadata == {"floor": 2} for record in gallery.engine.scan())
    assert "0 added, 7 already present" in resight(capsys, *words)
    # An id follows from the images, so that the same sightings as images are no other records.
    assert "0 added, 7 already present" in resight(capsys, "gallery", "add", tmp_path / "g", table, "--quiet")


def test_all_sightings_are_joined_to_the_identities_that_they_belong_to(tmp_path, model, sightings):
    """Each sighting of three modalities is one point of a clustering, not three that cannot be linked."""
    with api.create_gallery(tmp_path / "g", model) as gallery:
        gallery.ingest(sightings)
        clustering = gallery.cluster(threshold=-1.0, include_named=True)
        assert len(clustering.records) == 7
        assert clustering.sizes.tolist() == [7]
        assert gallery.cluster(threshold=1.0, include_named=True).sizes.tolist() == [1] * 7


def test_sightings_in_several_chunks_get_the_embeddings_of_one_call(tmp_path, model, sightings):
    small = load(model, batch_size=2)
    assert small.chunk_size(3) < len(sightings)
    with api.create_gallery(tmp_path / "g", small) as gallery:
        counts = []
        gallery.ingest(sightings, progress=counts.append)
        assert counts == [4, 7]
        assert_one_record_each(gallery, sightings, load(model).embed(sightings))


def test_a_record_is_embedded_with_the_camera_of_its_sighting(tmp_path):
    """Cameras that the model knows change the vector; one that it does not know is answered as unknown."""
    path, embedder = picture(tmp_path / "a.png", 1), load(small_model(tmp_path / "model", sie=("camera",)))
    stored = []
    for camera in ("c1", "c2", "elsewhere", None):
        with api.create_gallery(f"exact:{tmp_path / str(camera)}", embedder) as gallery:
            gallery.ingest(SightingTable.of([Sighting({"rgb": path}, camera=camera)]))
            stored.append(next(gallery.engine.scan()).vector)
            np.testing.assert_allclose(stored[-1], embedder.embed(path, camera=camera)[0], atol=1e-5)
    assert np.abs(stored[0] - stored[1]).max() > 1e-3
    assert np.abs(stored[0] - stored[2]).max() > 1e-3
    np.testing.assert_array_equal(stored[2], stored[3])


def test_a_corrupt_image_leaves_out_its_sighting_and_no_other(tmp_path, model, sightings):
    images = {m: picture(tmp_path / f"half-{m}.png", 3) for m in MODALITIES}
    images["nir"].write_bytes(b"\x89PNG broken")
    table = SightingTable.of([*list(sightings)[:2], Sighting(images), *list(sightings)[2:]])
    with api.create_gallery(tmp_path / "g", model) as gallery:
        report = gallery.ingest(table)
        assert (report.added, report.already_present) == (7, 0)
        assert len(report.corrupt) == 1
        assert "half-nir.png" in report.corrupt[0]
        assert_one_record_each(gallery, sightings, load(model).embed(sightings))
        picture(images["nir"], 3)  # replaced by a whole one, it is added by the next run
        assert gallery.ingest(table).added == 1
        assert len(gallery) == 8


def test_thumbnails_and_metadata_are_stored_with_a_record(tmp_path, model, sightings):
    with api.create_gallery(tmp_path / "g", model) as gallery:
        gallery.ingest(sightings, thumbnails=True, metadata={"gate": "north", "floor": 2})
        for record in gallery.engine.scan():
            shown = np.asarray(Image.open(BytesIO(record.thumbnail)).convert("RGB")).astype(int)
            first = np.asarray(Image.open(next(iter(record.images.values()))).convert("RGB")).astype(int)
            assert shown.shape == first.shape == (64, 32, 3)  # smaller than a thumbnail may be
            assert np.abs(shown - first).mean() < 20
            assert record.metadata == {"gate": "north", "floor": 2}
    large = Image.open(BytesIO(thumbnail(np.zeros((900, 300, 3), np.uint8))))
    assert large.size == (64, 192)


def test_an_id_follows_from_the_absolute_paths_of_all_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = Sighting({m: tmp_path / f"{m}.png" for m in MODALITIES})
    relative = replace(whole, images={m: path.relative_to(tmp_path) for m, path in whole.images.items()})
    turned = replace(whole, images=dict(reversed(whole.images.items())), camera="c1", identity="ann")
    part = replace(whole, images={"rgb": whole.images["rgb"]})
    assert sighting_id(whole) == sighting_id(relative) == sighting_id(turned)
    assert sighting_id(part) != sighting_id(whole)


@pytest.mark.parametrize("change", [{"flip": True}, {"fusion": "mean"}, {"unknown": "off"}])
def test_a_gallery_refuses_sightings_embedded_with_other_settings(tmp_path, model, sightings, change):
    api.create_gallery(tmp_path / "g", model).close()
    other = load(model, **change)
    with pytest.raises(GalleryError, match=f"the model gives embeddings {other.embedding_id}.*cannot be compared"):
        api.open_gallery(tmp_path / "g", other)
    with api.open_gallery(tmp_path / "g") as gallery:
        gallery._embedder = other  # as a caller who builds a Gallery by hand may give it
        with pytest.raises(GalleryError, match="cannot be compared"):
            gallery.ingest(sightings)
        assert len(gallery) == 0


def test_a_gallery_created_with_flip_is_filled_and_searched_with_flip(tmp_path, model, sightings, capsys):
    resight(capsys, "gallery", "create", tmp_path / "g", "--model", model, "--flip", "on")
    table = write_csv(tmp_path / "table.csv", sightings)
    resight(capsys, "gallery", "add", tmp_path / "g", table, "--quiet")
    with api.open_gallery(tmp_path / "g") as gallery:
        assert gallery.info.embedding.flip
        assert gallery.embedder.settings.flip
        flipped, plain = load(model, flip=True).embed(sightings), load(model).embed(sightings)
        assert np.abs(flipped - plain).max() > 1e-3
        assert_one_record_each(gallery, sightings, flipped)


def test_embeddings_of_another_model_or_other_settings_are_refused(tmp_path, model, sightings, capsys):
    table, file = write_csv(tmp_path / "table.csv", sightings), tmp_path / "flipped.parquet"
    resight(capsys, "extract", model, table, "--out", file, "--flip", "on", "--quiet")
    with api.create_gallery(tmp_path / "g", model) as gallery:
        with pytest.raises(GalleryError, match=r"the file holds embeddings .* cannot be compared"):
            gallery.ingest_embeddings(file)
        anonymous = tmp_path / "anonymous.parquet"
        vectors = np.eye(7, gallery.info.width, dtype=np.float32)
        write_embeddings(anonymous, Embeddings(vectors, sightings, EmbeddingsInfo()))
        with pytest.raises(GalleryError, match=r"anonymous\.parquet does not state the embedding_id of its model"):
            gallery.ingest_embeddings(anonymous)
        for path in (table, tmp_path / "absent.parquet"):
            with pytest.raises(DatasetError):
                gallery.ingest_embeddings(path)
        assert len(gallery) == 0


def test_embeddings_with_boxes_of_one_video_are_one_record_each(tmp_path, model):
    """Three boxes in two frames; what is nowhere but in the video is in the metadata."""
    embedder, video = load(model), tmp_path / "film.mp4"
    info = EmbeddingsInfo(embedding_id=embedder.embedding_id)
    sightings = SightingTable.of(Sighting({"rgb": video}, camera="c1", tracklet=f"t{n}", time=n / 2) for n in range(3))
    columns = {"frame": pa.array([4, 4, 5], pa.int64())}
    edges = {"left": [1.0, 7.0, 1.0], "top": [0.0] * 3, "right": [5.0, 12.0, 5.0], "bottom": [9.0] * 3}
    columns |= {name: pa.array(values, pa.float64()) for name, values in edges.items()}
    table = embeddings_table(np.eye(3, embedder.width, dtype=np.float32), sightings.arrow, columns)
    write_tables(tmp_path / "boxes.parquet", [table], info)
    with api.create_gallery(tmp_path / "g", embedder) as gallery:
        report = gallery.ingest_embeddings(tmp_path / "boxes.parquet", {"gate": "north"})
        assert (report.added, report.already_present) == (3, 0)
        stored = list(gallery.engine.scan())
        assert [record.metadata for record in stored] == [{"gate": "north", "frame": frame} for frame in (4, 4, 5)]
        assert [record.tracklet for record in stored] == ["t0", "t1", "t2"]
        assert {record.images["rgb"] for record in stored} == {str(video)}
        assert gallery.ingest_embeddings(tmp_path / "boxes.parquet").already_present == 3


def test_a_modality_that_the_model_does_not_know_is_refused(tmp_path, sightings):
    model = small_model(tmp_path / "rgb-only", sie=())
    with api.create_gallery(tmp_path / "g", model) as gallery:
        with pytest.raises(ConfigError, match="knows no modality 'nir'"):
            gallery.ingest(sightings)
        assert len(gallery) == 0


def test_an_embedder_without_a_folder_fills_a_gallery(tmp_path, model, sightings):
    loaded = load(model)
    embedder = Embedder(loaded.model, loaded.card, Embedding(flip=True))
    with api.create_gallery(tmp_path / "g", embedder) as gallery:
        assert gallery.info.model is None
        gallery.ingest(sightings)
        assert_one_record_each(gallery, sightings, embedder.embed(sightings))
    with api.open_gallery(tmp_path / "g", embedder) as gallery:
        assert gallery.ingest(sightings).already_present == 7

"""Folders of one modality each, with the same file names inside: files of the same name are one sighting."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from resight.config.folder import FolderOptions
from resight.data.findings import list_first
from resight.data.modalities import MODALITIES, count_fault, name_fault, ordered
from resight.data.readers.folders import IMAGE_SUFFIXES, contents, image_files, is_image
from resight.errors import ConfigError, DatasetError


def modality_folders(root: Path, options: FolderOptions) -> dict[str, Path]:
    """Return the folders of modalities in a folder, by modality; empty where it is not divided into such.

    Raises:
        ConfigError: a name is no name of a modality, or there are more than eight.
        DatasetError: a folder that the options name does not exist; or folders of modalities are beside other images.
    """
    if options.modalities:
        return _named_folders(root, options.modalities)
    names = [entry.name for entry in root.iterdir() if entry.is_dir()]
    usual = ordered(set(names) & set(MODALITIES))
    if not usual:
        return {}
    others = [entry for entry in sorted(root.iterdir()) if entry.name not in usual and _has_images(entry)]
    if not others:
        return {name: root / name for name in usual}
    if len(usual) == 1:  # a folder that happens to have this name
        return {}
    examples = ", ".join(entry.name + ("/" if entry.is_dir() else "") for entry in others[:3])
    raise DatasetError(
        f"{root} has the folders {', '.join(usual)} of modalities and beside them {len(others)} others with images, "
        f"such as {examples}: name the folders to read, as in --modalities {' '.join(usual)}"
    )


def pair(folders: Mapping[str, Path], allow_missing: bool = False, hint: str = "") -> list[tuple[str, dict[str, Path]]]:
    """Pair the image files of folders of modalities by their paths within the folder, without the suffix.

    Args:
        folders: by modality.
        allow_missing: accept files that not every folder has.
        hint: the end of the error of files that not every folder has.

    Returns:
        for each sighting, sorted, the path within the folder (of its first file, with `/`), and its files by modality.

    Raises:
        DatasetError: a folder has two files of the same name, or lacks one that another has.
    """
    sightings = defaultdict[str, dict[str, Path]](dict)
    for modality, folder in folders.items():
        doubled = list[tuple[Path, Path]]()
        for path in image_files(folder):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            other = sightings[stem].setdefault(modality, path)
            if other != path:
                doubled.append((other, path))
        if doubled:
            first, second = doubled[0]
            raise DatasetError(
                f"{folder} has {len(doubled)} name{'s' * (len(doubled) > 1)} in two files, such as "
                f"{first.relative_to(folder)} and {second.name}: a sighting has one file of a modality, so remove or "
                "rename one"
            )
    if not allow_missing:
        _require_complete(folders, sightings, hint)
    return [(_first(folders, images), images) for _, images in sorted(sightings.items())]


def pair_named(folders: Mapping[str, Path], layout: str) -> list[tuple[str, dict[str, Path]]]:
    """Pair the files of a published data set, as `pair`, in which no image is missing.

    Raises:
        DatasetError: as `pair`, or there is no image.
    """
    sightings = pair(folders)
    if not sightings:
        names = ", ".join(map(str, folders.values()))
        raise DatasetError(f"{layout}: {names} hold no picture ({', '.join(IMAGE_SUFFIXES)})")
    return sightings


def _named_folders(root: Path, names: tuple[str, ...]) -> dict[str, Path]:
    fault = next((fault for name in names if (fault := name_fault(name))), "") or count_fault(names)
    if fault:
        raise ConfigError(f"--modalities: {fault}")
    absent = [name for name in names if not (root / name).is_dir()]
    if absent:
        raise DatasetError(f"{root} has no folder {absent[0]} of a modality; found {contents(root)}")
    return {name: root / name for name in ordered(names)}


def _has_images(entry: Path) -> bool:
    return bool(image_files(entry)) if entry.is_dir() else is_image(entry)


def _require_complete(folders: Mapping[str, Path], sightings: Mapping[str, Mapping[str, Path]], hint: str) -> None:
    incomplete = [images for _, images in sorted(sightings.items()) if len(images) < len(folders)]
    if not incomplete:
        return
    lacking = list[str]()
    for modality, folder in folders.items():
        names = [_first(folders, images) for images in incomplete if modality not in images]
        if names:
            lacking.append(f"{folder} lacks {list_first(names)}")
    raise DatasetError(
        f"{len(incomplete)} of {len(sightings)} sightings have no image in a modality that others have: "
        f"{'; '.join(lacking)}{hint}"
    )


def _first(folders: Mapping[str, Path], images: Mapping[str, Path]) -> str:
    modality = next(name for name in folders if name in images)
    return images[modality].relative_to(folders[modality]).as_posix()

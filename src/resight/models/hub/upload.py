"""Upload a model to the Hub: the files that are named, in one commit."""

from collections.abc import Mapping
from pathlib import Path

from resight.models.hub.client import USER, uploading


def upload_files(
    repository: str, files: Mapping[str, Path | bytes], message: str, revision: str | None, private: bool
) -> str:
    """Upload files in one commit to a repository, which is created if it does not exist.

    Args:
        repository: ORG/NAME.
        files: their content, by the name in the repository; others there are left as they are.
        message: of the commit.
        revision: the branch, which is created if it does not exist; None for main.
        private: whether a repository that is created can be read by its owners alone.

    Returns:
        the address of the commit's page.

    Raises:
        StorageError: the Hub cannot be reached, or refuses it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with uploading(repository):
        hub = HfApi(**USER)
        hub.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None and revision != "main":
            hub.create_branch(repository, branch=revision, exist_ok=True)
        additions = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        return str(hub.create_commit(repository, additions, commit_message=message, revision=revision).commit_url)

"""The routes of the page, by what they show."""

from typing import Final

from resight.service.page.routes import (
    add_many,
    admin,
    cameras,
    changes,
    clusters,
    embedding_map,
    files,
    identities,
    search,
    sign_in,
    tasks,
    why,
)

PAGE_ROUTERS: Final = tuple(
    module.router
    for module in (
        search,
        why,
        changes,
        add_many,
        identities,
        clusters,
        embedding_map,
        cameras,
        admin,
        sign_in,
        tasks,
        files,
    )
)

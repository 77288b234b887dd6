"""The routes of the page, by what they show."""

from typing import Final

from resight.service.page.routes import admin, cameras, changes, clusters, files, identities, search, sign_in

PAGE_ROUTERS: Final = tuple(
    module.router for module in (search, changes, identities, clusters, cameras, admin, sign_in, files)
)

"""Lists that come in pages."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

PAGE_SIZE = 500


async def all_pages(
    call: Callable[[Any, Any], Awaitable[Any]], method: Any, request: Any, *, page_size: int = PAGE_SIZE
) -> AsyncGenerator[Any]:
    """Yield the answers of `call(method, request)`, page after page; `request` is changed."""
    request.page_size = page_size
    while True:
        page = await call(method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
